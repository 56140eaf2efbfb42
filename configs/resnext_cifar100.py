"""Plain ResNeXt-29 (20x6d) on CIFAR-100: the baseline of coded_cifar100.py.

    python -m branchnets.main --config=configs/resnext_cifar100.py --workdir=runs/resnext_cifar100

Paper (Table 2): 76.86 %.  Same recipe as coded_cifar100.py, without the code; about as
long: 40 minutes an epoch on two CPU cores in float32, so use an accelerator.
"""

from branchnets.engine import config as configs


def get_config(arg=None):
    args = configs.parse_arg(arg, smoke=False, seed=0)
    config = configs.base("plain")
    config.seed = args.seed
    config.model.name = "resnext29_20x6d"

    config.data.name = "cifar100"
    config.data.label = "fine"
    config.augment.crop_padding = 4
    config.augment.flip = True
    config.augment.randaugment_layers = 1
    config.augment.randaugment_magnitude = 2.0

    config.dtype = "bfloat16"
    config.batch_size = 512
    config.bn_group_size = 64  # the paper's statistics were those of one of eight TPU cores
    config.epochs = 300
    config.optimizer.learning_rate = 0.1
    config.optimizer.weight_decay = 5e-4
    config.schedule.final_learning_rate = 1e-4
    config.eval.every_epochs = 5
    config.checkpoint.every_epochs = 5
    if args.smoke:
        configs.smoke(config, model=dict(depths=(1, 1, 1)))
    return config

"""Coded ResNeXt-29 (20x6d) on CIFAR-100, the paper's recipe (section 4.1).

    python -m branchnets.main --config=configs/coded_cifar100.py --workdir=runs/coded_cifar100

Paper (Table 2): 78.28 %, mu = 6, p_drop = 0.1, eight TPU v2 cores of 64 images.  On two CPU cores
an epoch takes about 40 minutes (--config.dtype=float32); use an accelerator.
CIFAR-100 is read from a tfds directory: --config.data.data_dir=..., or TFDS_DATA_DIR.
"""

from branchnets.engine import config as configs


def get_config(arg=None):
    args = configs.parse_arg(arg, smoke=False, seed=0)
    config = configs.base("coded")
    config.seed = args.seed
    config.model.name = "coded_resnext29_20x6d_cifar100"
    config.model.drop_rate = 0.1
    config.coded.mu = 6.0

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
        configs.smoke(config, model=dict(active=((20,), (8,), (4,))))
    return config

"""Coded ResNeXt-29 (10x11d) on CIFAR-10, the paper's recipe (section 4.1).

    python -m branchnets.main --config=configs/coded_cifar10.py --workdir=runs/coded_cifar10

Paper (Table 2): 94.41 %, mu = 6, p_drop = 0.1, eight TPU v2 cores of 64 images.  On two CPU cores
an epoch takes about 40 minutes (--config.dtype=float32); use an accelerator.
CIFAR-10 is read from a tfds directory: --config.data.data_dir=..., or TFDS_DATA_DIR.
"""

from branchnets.engine import config as configs


def get_config(arg=None):
    args = configs.parse_arg(arg, smoke=False, seed=0)
    config = configs.base("coded")
    config.seed = args.seed
    config.model.name = "coded_resnext29_10x11d_cifar10"
    config.model.drop_rate = 0.1
    config.coded.mu = 6.0

    config.data.name = "cifar10"
    config.augment.crop_padding = 4
    config.augment.flip = True
    config.augment.randaugment_layers = 3
    config.augment.randaugment_magnitude = 4.0

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
        configs.smoke(config, model=dict(active=((10,), (5,), (3,))))
    return config

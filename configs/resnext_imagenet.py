"""Plain ResNeXt-50 (32x4d) on ImageNet at 160x160: the baseline of coded_imagenet.py.

    python -m branchnets.main --config=configs/resnext_imagenet.py --workdir=runs/resnext_imagenet \
        --config.data.data_dir=IMAGENET

What IMAGENET is, and what becomes of its images, is said in coded_imagenet.py.

Paper (Table 2): 78.05 %; 439 images/s on eight TPU v2 cores (Table 4), about 45 minutes an epoch.
"""

from branchnets.engine import config as configs


def get_config(arg=None):
    args = configs.parse_arg(arg, smoke=False, seed=0)
    config = configs.base("plain")
    config.seed = args.seed
    config.model.name = "resnext50_32x4d"
    config.model.head_bias = False  # as in the coded network, 25,027,904 parameters

    config.data.name = "imagenet2012"
    config.data.image_size = 160
    config.augment.crop_area = (0.08, 1.0)
    config.augment.flip = True
    config.augment.randaugment_layers = 2
    config.augment.randaugment_magnitude = 10.0

    config.dtype = "bfloat16"
    config.batch_size = 1024
    config.bn_group_size = 128  # the paper's statistics were those of one of eight TPU cores
    config.epochs = 150
    config.optimizer.base_learning_rate = 0.1  # times batch_size / 256
    config.optimizer.weight_decay = 1e-4
    config.optimizer.weight_decay_exclude = ("bias$", "scale$")
    config.schedule.warmup_epochs = 5.0
    config.schedule.final_learning_rate = 1e-5
    config.eval.crop_fraction = 0.875
    config.eval.every_epochs = 1
    config.checkpoint.every_epochs = 1
    if args.smoke:
        configs.smoke(config, model=dict(depths=(1, 1, 1, 1)))
    return config

"""MaskConnect on handwritten digits: {D=20, w=2, C=8}, masks learned, then frozen.

    python -m branchnets.main --config=configs/maskconnect_digits.py --workdir=runs/maskconnect

`:connectivity=learned|real|random|ones|full` and `:k=1` choose what is compared with what.  Not in
the paper; its CIFAR phases in small: learn, freeze the top K, fine-tune at falling rates.
"""

from branchnets.engine import config as configs


def get_config(arg=None):
    args = configs.parse_arg(arg, smoke=False, seed=0, connectivity="learned", k=4)
    config = configs.base("maskconnect")
    config.seed = args.seed
    config.model.name = "maskconnect_digits"
    config.model.connectivity = args.connectivity
    config.model.fan_in = args.k

    config.data.name = "digits"
    config.data.image_size = 16
    config.augment.crop_padding = 2

    config.batch_size = 64
    config.bn_group_size = 16
    config.epochs = 32
    config.maskconnect.phases = (("learn", 12.0), ("tune", 20.0))
    config.optimizer.learning_rate = 0.1
    config.optimizer.nesterov = False
    config.optimizer.weight_decay = 5e-4
    config.schedule.name = "step"
    config.schedule.milestones = (22.0, 27.0)
    config.schedule.factor = 0.1
    config.eval.every_epochs = 4
    config.checkpoint.every_epochs = 8
    if args.smoke:
        configs.smoke(config, model=dict(depths=(1, 1, 1), branches=4, fan_in=min(args.k, 4)))
        config.maskconnect.phases = (("learn", 0.5), ("tune", 0.5))
    return config

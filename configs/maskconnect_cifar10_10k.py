"""A narrow MaskConnect {20,8,8} on 10,000 images of CIFAR-10: a study for two CPU cores.

    python -m branchnets.main --config=configs/maskconnect_cifar10_10k.py --workdir=runs/mask_10k

Not in the paper.  A fixed class-balanced subset of the training split and the whole test split;
the stem pools, so that streams are 16x16 and have 16, 32 and 64 channels.  Compare only what this
file gives: `:connectivity=learned|real|random|ones|full`, `:k=4`, `:aggregate=mean|sum`.  The
masks' rate is ten times the paper's, since a run has a fiftieth of its steps; gradients are clipped
so that the sum trains too.  One busy CPU core: 23 to 27 minutes; learned 67.1, random 68.5, full
68.0 % (results/maskconnect.md).
"""

from branchnets.engine import config as configs
from branchnets.families.maskconnect.arguments import fan_in


def get_config(arg=None):
    args = configs.parse_arg(
        arg, smoke=False, seed=0, connectivity="learned", k=4, aggregate="mean"
    )
    config = configs.base("maskconnect")
    config.seed = args.seed
    config.model.name = "maskconnect20_w4_c8"
    config.model.stem = "cifar_pool"
    config.model.width = 8
    config.model.channels = 16
    config.model.connectivity = args.connectivity
    config.model.fan_in = fan_in(config.model.name, args.k)
    config.model.aggregate = args.aggregate

    config.data.name = "cifar10"
    config.data.train_size = 10_000
    config.augment.crop_padding = 4
    config.augment.flip = True

    config.batch_size = 64
    config.bn_group_size = 16
    config.epochs = 12
    config.maskconnect.phases = (("learn", 5.0), ("tune", 7.0))
    config.maskconnect.mask_learning_rate = 2.0
    config.optimizer.learning_rate = 0.1
    config.optimizer.nesterov = False
    config.optimizer.weight_decay = 5e-4
    config.optimizer.grad_clip = 1.0
    config.schedule.name = "step"
    config.schedule.milestones = (9.0, 11.0)
    config.schedule.factor = 0.1
    config.eval.every_epochs = 3
    config.checkpoint.every_epochs = 1
    if args.smoke:
        configs.smoke(config, model=dict(depths=(1, 1, 1), branches=4, fan_in=min(args.k, 4)))
        config.maskconnect.phases = (("learn", 0.5), ("tune", 0.5))
    return config

"""MaskConnect on handwritten digits: {D=20, w=2, C=8}, masks learned, then frozen.

    python -m branchnets.main --config=configs/maskconnect_digits.py --workdir=runs/maskconnect

`:connectivity=learned|real|random|ones|full`, `:k=1` and `:aggregate=sum` choose what is compared
with what.  Not in the paper; its CIFAR phases in small: learn, freeze the top K, fine-tune at
falling rates.  The masks' rate is ten times the paper's, since a run has a hundredth of its steps.
Two CPU cores: about 2 minutes (results/maskconnect.md: 98.61 ± 0.28 % with K = 4, 3 seeds).
"""

from branchnets.engine import config as configs
from branchnets.families.maskconnect.arguments import fan_in


def get_config(arg=None):
    args = configs.parse_arg(
        arg, smoke=False, seed=0, connectivity="learned", k=4, aggregate="mean"
    )
    config = configs.base("maskconnect")
    config.seed = args.seed
    config.model.name = "maskconnect_digits"
    config.model.connectivity = args.connectivity
    config.model.fan_in = fan_in(config.model.name, args.k)
    config.model.aggregate = args.aggregate

    config.data.name = "digits"
    config.augment.crop_padding = 1

    config.batch_size = 64
    config.bn_group_size = 16
    config.epochs = 40
    config.maskconnect.phases = (("learn", 20.0), ("tune", 20.0))
    config.maskconnect.mask_learning_rate = 2.0
    config.optimizer.learning_rate = 0.1
    config.optimizer.nesterov = False
    config.optimizer.weight_decay = 5e-4
    config.optimizer.grad_clip = 1.0  # the sum of Eq. 2 diverges in its first steps without
    config.schedule.name = "step"
    config.schedule.milestones = (30.0, 36.0)
    config.schedule.factor = 0.1
    config.eval.every_epochs = 5
    config.checkpoint.every_epochs = 10
    if args.smoke:
        configs.smoke(config, model=dict(depths=(1, 1, 1), branches=4, fan_in=min(args.k, 4)))
        config.maskconnect.phases = (("learn", 0.5), ("tune", 0.5))
    return config

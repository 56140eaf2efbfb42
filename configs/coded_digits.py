"""Coded ResNeXt on handwritten digits: the first thing to run.

    python -m branchnets.main --config=configs/coded_digits.py --workdir=runs/coded_digits

Two CPU cores: about 2 minutes.  Not in the paper; goals: test accuracy 97.5 %, early decoding from
the last block 90 %.  The 1,797 digits of the UCI collection come with the package.
"""

from branchnets.engine import config as configs


def get_config(arg=None):
    args = configs.parse_arg(arg, smoke=False, seed=0)
    config = configs.base("coded")
    config.seed = args.seed
    config.model.name = "coded_resnext_digits"
    config.model.drop_rate = 0.1
    config.coded.mu = 6.0

    config.data.name = "digits"
    config.data.image_size = 16
    config.augment.crop_padding = 2

    config.batch_size = 64
    config.bn_group_size = 64
    config.epochs = 30
    config.optimizer.learning_rate = 0.1
    config.optimizer.weight_decay = 5e-4
    config.schedule.final_learning_rate = 1e-4
    config.eval.every_epochs = 5
    config.checkpoint.every_epochs = 10
    if args.smoke:
        configs.smoke(config, model=dict(active=((10,), (5,), (3,))))
    return config

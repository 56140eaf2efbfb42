"""Plain ResNeXt on handwritten digits: the counterpart of coded_digits.py.

    python -m branchnets.main --config=configs/resnext_digits.py --workdir=runs/resnext_digits

Two CPU cores: about 2 minutes.  Same shape, same recipe; no code, no coding loss.
"""

from branchnets.engine import config as configs


def get_config(arg=None):
    args = configs.parse_arg(arg, smoke=False, seed=0)
    config = configs.base("plain")
    config.seed = args.seed
    config.model.name = "resnext_digits"

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
        configs.smoke(config, model=dict(depths=(1, 1, 1)))
    return config

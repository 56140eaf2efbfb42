"""A narrow Coded ResNeXt-11 (10x4d) on 10,000 images of CIFAR-10: a study for two CPU cores.

    python -m branchnets.main --config=configs/coded_cifar10_10k.py --workdir=runs/coded_10k

Not in the paper.  A fixed class-balanced subset of the training split, the whole test split, 15
epochs; compare only with resnext_cifar10_10k.py.  Two CPU cores: about 20 minutes if idle (30 in
the recorded run, on a busy machine); recorded test accuracy 66.0 % (results/cifar10_10k/).
"""

from branchnets.engine import config as configs


def get_config(arg=None):
    args = configs.parse_arg(arg, smoke=False, seed=0)
    config = configs.base("coded")
    config.seed = args.seed
    config.model.name = "coded_resnext11_10x4d_cifar10"
    config.model.drop_rate = 0.1
    config.coded.mu = 6.0

    config.data.name = "cifar10"
    config.data.train_size = 10_000
    config.augment.crop_padding = 4
    config.augment.flip = True

    config.batch_size = 64
    config.bn_group_size = 64
    config.epochs = 15
    config.optimizer.learning_rate = 0.1
    config.optimizer.weight_decay = 5e-4
    config.schedule.final_learning_rate = 1e-4
    config.eval.every_epochs = 5
    config.checkpoint.every_epochs = 1
    if args.smoke:
        configs.smoke(config, model=dict(active=((10,), (5,), (3,))))
    return config

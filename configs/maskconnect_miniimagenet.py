"""MaskConnect on Mini-ImageNet, the paper's recipe (appendices C and E.3).

    python -m branchnets.main --config=configs/maskconnect_miniimagenet.py --workdir=runs/mini \
        --config.data.data_dir=IMAGENET

IMAGENET has ImageNet's training images as IMAGENET/train/n01532829/*.JPEG and so on, or is a
directory of tfds with imagenet2012; the 100 classes are decoded once (minutes) and take 1.3 GB of
memory, here and on the device.

Paper (Table 4, best of four runs): {29,8,8}, the default here, K = 4 71.36, ResNeXt 68.11, random
K = 4 67.97 %; {20,4,8} (`:model=maskconnect20_w4_c8_miniimagenet`) 66.09, 62.12, 62.42 %.
`:connectivity=learned|random|full|real|ones` and `:k=4` give the rows (`full` is the true ResNeXt),
`:aggregate=sum|mean` what a branch makes of its inputs (the sum wants
`--config.optimizer.grad_clip=1.0`).  Four seeds.

Expected time: not measured.  `python -m benchmarks.train_step --batch=256
maskconnect29_w8_c8_miniimagenet:aggregate=mean` gives images/s, of which the run takes
320 x 49,920; use an accelerator.

Differs: which 600 images of a class the paper took is not known, so that its numbers are those of
another draw; see branchnets/data/sets/mini_imagenet.py.  `:aggregate=mean` is the default, and
pixels are divided by the standard deviation of their channel, as in maskconnect_cifar100.py.
"""

from branchnets.engine import config as configs
from branchnets.families.maskconnect.arguments import fan_in


def get_config(arg=None):
    args = configs.parse_arg(
        arg,
        smoke=False,
        seed=0,
        model="maskconnect29_w8_c8_miniimagenet",
        connectivity="learned",
        k=4,
        aggregate="mean",
    )
    config = configs.base("maskconnect")
    config.seed = args.seed
    config.model.name = args.model
    config.model.connectivity = args.connectivity
    config.model.fan_in = fan_in(config.model.name, args.k)
    config.model.aggregate = args.aggregate

    config.data.name = "mini_imagenet"
    config.data.crop_size = 64
    config.data.per_pixel_mean = True
    config.augment.flip = True

    config.batch_size = 256
    config.bn_group_size = 32  # the paper's statistics were those of one of eight GPUs
    config.epochs = 320
    config.maskconnect.phases = (("learn", 120.0), ("tune", 100.0), ("tune", 50.0), ("tune", 50.0))
    config.maskconnect.mask_learning_rate = 0.2
    config.optimizer.learning_rate = 0.1
    config.optimizer.nesterov = False
    config.optimizer.weight_decay = 5e-4
    config.schedule.name = "step"
    config.schedule.milestones = (220.0, 270.0)  # phases 3 and 4
    config.schedule.factor = 0.1
    config.eval.every_epochs = 5
    config.checkpoint.every_epochs = 5
    if args.smoke:
        configs.smoke(config, model=dict(depths=(1, 1, 1), branches=4, fan_in=min(args.k, 4)))
        config.maskconnect.phases = (("learn", 0.5), ("tune", 0.5))
    return config

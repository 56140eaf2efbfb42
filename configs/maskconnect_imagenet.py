"""MaskConnect on ImageNet at 224x224, the paper's recipe (appendix E.2).

    python -m branchnets.main --config=configs/maskconnect_imagenet.py --workdir=runs/mask \
        --config.data.data_dir=IMAGENET

IMAGENET is a directory of tfds with imagenet2012 (or its URL, gs://BUCKET/tfds), or has the folders
IMAGENET/train/n01440764/*.JPEG and IMAGENET/val/n01440764/*.JPEG and so on, one for each of the
1,000 classes.  Images are decoded as they are needed: random resized crops of 8 to 100 % of the
area and flips in training; in evaluation the shorter side becomes 256 pixels, of which the middle
224 are taken.

Paper (Table 2, top-1 / top-5; learned K = C/2 against ResNeXt): {50,4,32}, the default here, 79.1 /
94.1 against 77.8 / 93.3 %; {101,4,32} (`:model=maskconnect101_w4_c32`) 79.5 / 94.5 against 78.8 /
94.1; {101,4,64} (`:model=maskconnect101_w4_c64`) 79.8 / 94.8 against 79.6 / 94.7.
`:connectivity=learned|random|full|real|ones` and `:k=16` choose the inputs (`full` is the true
ResNeXt); K is C/2 unless `:k=` says otherwise.  Expected time: not measured.

Memory (an estimate, not measured): the streams that the modules give, 2 bytes (bfloat16) times the
sum over modules of C x height x width x channels, are 353 MB an image for {50,4,32} and 1.14 GB for
{101,4,64}, so 90 and 293 GB for a batch of 256; what else a training step keeps of each module
(its mixed inputs, the convolutions' outputs) comes on top: the compiler for TPU v2 takes 1.2 GB an
image for {50,4,32} (results/scale.md).  Spread the batch over devices, or make parts of it:
--config.optimizer.accumulate_steps=8.

Differs: images lose the mean of their channel, not of each pixel: crops that are random in place
and size leave no pixel to take a mean of; and they are divided by the standard deviation of their
channel.  `:aggregate=mean` is the default.  The sum of Eq. 2 multiplies the identity path by K in
every module of a stage but the first: by 16^22 = 3e26 over the 22 such modules of stage c4 of
{101,4,32}, whose square, which the batch norms that follow compute, is beyond float32 (and
bfloat16, which has the same range).
"""

from branchnets.engine import config as configs
from branchnets.families.maskconnect.arguments import fan_in


def get_config(arg=None):
    args = configs.parse_arg(
        arg,
        smoke=False,
        seed=0,
        model="maskconnect50_w4_c32",
        connectivity="learned",
        k=None,
        aggregate="mean",
    )
    config = configs.base("maskconnect")
    config.seed = args.seed
    config.model.name = args.model
    config.model.connectivity = args.connectivity
    config.model.fan_in = fan_in(config.model.name, args.k)
    config.model.aggregate = args.aggregate

    config.data.name = "imagenet2012"
    config.augment.crop_area = (0.08, 1.0)
    config.augment.flip = True

    config.dtype = "bfloat16"
    config.batch_size = 256
    config.bn_group_size = 32  # the paper's statistics were those of one of eight GPUs
    config.epochs = 120
    config.maskconnect.phases = (("learn", 30.0), ("tune", 30.0), ("tune", 30.0), ("tune", 30.0))
    config.maskconnect.mask_learning_rate = 0.2
    config.optimizer.learning_rate = 0.1
    config.optimizer.nesterov = False
    config.optimizer.weight_decay = 1e-4
    config.schedule.name = "step"
    config.schedule.milestones = (60.0, 90.0)  # phases 3 and 4
    config.schedule.factor = 0.1
    config.eval.crop_fraction = 0.875
    config.eval.every_epochs = 1
    config.checkpoint.every_epochs = 1
    if args.smoke:
        k = 2 if args.k is None else min(args.k, 4)
        small = dict(depths=(1, 1, 1, 1), branches=4, channels=32, fan_in=k)
        configs.smoke(config, model=small)
        config.maskconnect.phases = (("learn", 0.5), ("tune", 0.5))
    return config

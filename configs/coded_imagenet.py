"""Coded ResNeXt-50 (32x4d) on ImageNet at 160x160, the paper's recipe (section 4.1).

    python -m branchnets.main --config=configs/coded_imagenet.py --workdir=runs/coded_imagenet \
        --config.data.data_dir=IMAGENET

IMAGENET is a directory of tfds with imagenet2012 (or its URL, gs://BUCKET/tfds), or has the folders
IMAGENET/train/n01440764/*.JPEG and IMAGENET/val/n01440764/*.JPEG and so on, one for each of the
1,000 classes.  Images are decoded as they are needed: random resized crops of 8 to 100 % of the
area, flips and RandAugment in training, as in the paper; in evaluation the shorter side becomes 183
pixels, of which the middle 160 are taken (the paper does not say; 0.875 is usual).

Paper (Table 2): 78.12 %, mu = 1, p_drop = 0.1; 447 images/s on eight TPU v2 cores (Table 4), about
45 minutes an epoch.  Variants of appendix B: `:variant=c3` gives stage c3 the ratio 24/32;
`:variant=c4` gives the last three blocks of c4 the ratio 8/32 and c5 4/32.  `:codes=better` takes,
for every variant, the coding schemes with the largest minimum distance there can be (12 for 16/32,
8 for 8/32 and 24/32; the paper's have 10 and 6) and exactly even branches: results/codes.md.
"""

from branchnets.engine import config as configs

#: N_act of every block, by stage (appendix B).
VARIANTS = {
    "paper": ((32,) * 3, (32,) * 4, (16,) * 6, (8,) * 3),
    "c3": ((32,) * 3, (24,) * 4, (16,) * 6, (8,) * 3),
    "c4": ((32,) * 3, (32,) * 4, (16,) * 3 + (8,) * 3, (4,) * 3),
}

#: N_act -> the scheme of `:codes=better`.  At 4/32 nothing is better than the usual one.
BETTER = {24: "imagenet_24of32_d8", 16: "imagenet_16of32_d12", 8: "imagenet_8of32_d8"}
CODES = ("paper", "better")


def get_config(arg=None):
    args = configs.parse_arg(arg, smoke=False, seed=0, variant="paper", codes="paper")
    config = configs.base("coded")
    config.seed = args.seed
    config.model.name = "coded_resnext50_32x4d_imagenet"
    config.model.drop_rate = 0.1
    config.coded.mu = 1.0
    if args.variant not in VARIANTS:
        raise configs.ConfigError(f"unknown variant {args.variant!r}; known: {', '.join(VARIANTS)}")
    if args.codes not in CODES:
        raise configs.ConfigError(f"unknown codes {args.codes!r}; known: {', '.join(CODES)}")
    if args.variant != "paper":
        config.model.active = VARIANTS[args.variant]

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
    ratios = {kept for stage in VARIANTS[args.variant] for kept in stage}
    if args.smoke:
        last = tuple((stage[-1],) for stage in VARIANTS[args.variant])
        configs.smoke(config, model=dict(active=last))
        ratios = {kept for stage in last for kept in stage}
    if args.codes == "better":  # the family refuses schemes that no block uses
        config.coded.schemes = tuple(name for kept, name in BETTER.items() if kept in ratios)
    return config

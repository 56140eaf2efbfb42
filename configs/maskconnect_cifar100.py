"""MaskConnect on CIFAR-100, the paper's recipe (appendix E.1): masks learned, then frozen.

    python -m branchnets.main --config=configs/maskconnect_cifar100.py --workdir=runs/mask_cifar100

Paper (Table 1, best of four runs): {29,8,8}, the default here, K = 4 75.89, K = 1 73.91, ResNeXt
73.52, random K = 4 72.85 %, 0.86 M parameters of which K = 1 keeps 0.65 M; {29,64,8} 84.05, 82.31,
82.23, 81.96 %, 34.4 M of which K = 1 keeps 20.5 M.

`:model=...` takes any of maskconnect20_w4_c8, maskconnect29_w4_c8, maskconnect29_w8_c8 and
maskconnect29_w64_c8, `:connectivity=learned|random|full|real|ones` and `:k=1` the rows of the table
(`full` is the true ResNeXt), `:aggregate=sum|mean` what a branch makes of its inputs.  Four seeds.
`:aggregate=sum` wants `--config.optimizer.grad_clip=1.0`: on digits, at this rate of 0.1, it
diverged without.

Expected time: not measured.  `python -m benchmarks.train_step maskconnect29_w8_c8:aggregate=mean
--batch=128` gives images/s, of which the run takes 320 x 49,920; use an accelerator.
CIFAR-100 is read from a tfds directory: --config.data.data_dir=..., or TFDS_DATA_DIR.

Differs: `:aggregate=mean` is the default; the sum of Eq. 2 multiplies the identity path by K in
every module of a stage but the first.  Pixels are divided by the standard deviation of their
channel, of which the paper says nothing.
"""

from branchnets.engine import config as configs
from branchnets.families.maskconnect.arguments import fan_in


def get_config(arg=None):
    args = configs.parse_arg(
        arg,
        smoke=False,
        seed=0,
        model="maskconnect29_w8_c8",
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

    config.data.name = "cifar100"
    config.data.label = "fine"
    config.data.per_pixel_mean = True
    config.augment.crop_padding = 4
    config.augment.flip = True

    config.batch_size = 128
    config.bn_group_size = 16  # the paper's statistics were those of one of eight GPUs
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

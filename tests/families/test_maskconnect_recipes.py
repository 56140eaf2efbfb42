"""The configs of MaskConnect are the recipes of appendix E, number by number."""

import pathlib

import pytest

from branchnets import data, families
from branchnets.engine import config as configs
from branchnets.engine import optim

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
STEPS = 4  # an epoch
LONG, SHORT = (120, 100, 50, 50), (30, 30, 30, 30)
#: Batch, examples of one GPU, weight decay, epochs of the four phases, network's images.
RECIPES = {
    "cifar10": (128, 16, 5e-4, LONG, (32, 32, 3)),
    "cifar100": (128, 16, 5e-4, LONG, (32, 32, 3)),
    "miniimagenet": (256, 32, 5e-4, LONG, (64, 64, 3)),
    "imagenet": (256, 32, 1e-4, SHORT, (224, 224, 3)),
}


def load(name, arguments=""):
    config = configs.load(f"{CONFIGS / f'maskconnect_{name}.py'}:{arguments}")
    return config, families.create(config, data.spec(None, config.data))


@pytest.mark.parametrize("name", RECIPES)
def test_sizes_phases_and_rates(name):
    batch, group, decay, epochs, shape = RECIPES[name]
    config, family = load(name)
    assert (config.batch_size, config.bn_group_size) == (batch, group)
    settings = config.optimizer
    assert (settings.name, settings.momentum, settings.nesterov) == ("sgd", 0.9, False)
    assert settings.weight_decay == decay and not settings.weight_decay_exclude
    assert family.mask_learning_rate == 0.2
    assert data.spec(None, config.data).image_shape == shape

    assert config.epochs == sum(epochs)
    phases = family.phases(config.epochs * STEPS)
    assert [phase.steps for phase in phases] == [n * STEPS for n in epochs]
    assert [phase.mode for phase in phases] == ["learn", "tune", "tune", "tune"]
    rate = optim.schedule(config, configs.resolve(config, steps_per_epoch=STEPS))
    begin = 0
    for phase, expected in zip(phases, (0.1, 0.1, 0.01, 0.001), strict=True):
        for step in (begin, begin + phase.steps - 1):
            assert float(rate(step)) == pytest.approx(expected, rel=1e-5)
        begin += phase.steps


def test_images_as_the_paper_treats_them():
    for name in ("cifar10", "cifar100"):
        config, _ = load(name)
        assert config.data.per_pixel_mean and config.augment.flip
        assert config.augment.crop_padding == 4
    config, _ = load("miniimagenet")
    assert config.data.per_pixel_mean and config.augment.flip and config.data.crop_size == 64
    assert data.content_shape(config.data) == (84, 84, 3) and not config.augment.crop_padding
    config, _ = load("imagenet")
    assert config.dtype == "bfloat16" and not config.data.per_pixel_mean


@pytest.mark.parametrize(
    ("name", "arguments", "fan_in"),
    [
        ("cifar100", "", 4),
        ("cifar100", "k=1", 1),
        ("cifar10", "model=maskconnect29_w64_c8,connectivity=random,k=4", 4),
        ("miniimagenet", "model=maskconnect20_w4_c8_miniimagenet", 4),
        ("imagenet", "", 16),
        ("imagenet", "model=maskconnect101_w4_c64", 32),
        ("imagenet", "model=maskconnect101_w4_c32,k=8", 8),
    ],
)
def test_arguments_choose_the_rows_of_the_tables(name, arguments, fan_in):
    config, family = load(name, arguments)
    # The config says K, so that a run finds the paper's numbers beside it.
    assert family.model.fan_in == config.model.fan_in == fan_in
    assert load(name, "aggregate=sum")[1].model.aggregate == "sum"
    assert not load(name, "connectivity=full")[1].has_masks


@pytest.mark.parametrize("name", [*RECIPES, "digits", "cifar10_10k"])
@pytest.mark.parametrize("smoke", ["", "smoke,"])
def test_a_k_that_cannot_be_is_refused(name, smoke):
    most = 32 if name == "imagenet" else 8
    for k in (0, -1, most + 1):
        with pytest.raises(configs.ConfigError, match=f"fan_in is {k}; .* read 1 to {most} others"):
            configs.load(f"{CONFIGS / f'maskconnect_{name}.py'}:{smoke}k={k}")
    for k in ("2.5", "four"):
        with pytest.raises(configs.ConfigError, match=rf"(whole number|fan_in is).*{k}"):
            configs.load(f"{CONFIGS / f'maskconnect_{name}.py'}:{smoke}k={k}")
    if smoke:  # of 4 branches
        given = {k: load(name, f"smoke,k={k}")[1].model.fan_in for k in (1, 4, most)}
        assert given == {1: 1, 4: 4, most: 4}


def test_an_unknown_network_is_named():
    with pytest.raises(configs.ConfigError, match="Did you mean 'maskconnect29_w8_c8'"):
        configs.load(f"{CONFIGS / 'maskconnect_cifar10.py'}:model=maskconect29_w8_c8")


def test_shorter_runs_are_told_how():
    config, _ = load("cifar100")
    config.epochs = 10
    with pytest.raises(configs.ConfigError, match=r"add up to 320 epochs, the run has 10.*phases="):
        families.create(config, data.spec(None, config.data))
    configs.apply_overrides(config, ["--config.maskconnect.phases=(('learn',4.0),('tune',6.0))"])
    families.create(config, data.spec(None, config.data))


@pytest.mark.parametrize("phases", [("learn", 320.0), (("learn",),), (("learn", "long"),), (3,)])
def test_phases_that_are_no_pairs(phases):
    config, _ = load("cifar100")
    config.maskconnect.phases = phases
    with pytest.raises(configs.ConfigError, match="pairs of a mode and a number of epochs"):
        families.create(config, data.spec(None, config.data))

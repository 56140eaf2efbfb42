"""Every config builds, takes overrides, and trains two steps at smoke size."""

import pathlib

import jax
import pytest

import branchnets
from branchnets import data
from branchnets.engine import config as configs
from branchnets.engine.train import train

FOLDER = pathlib.Path(__file__).parents[1] / "configs"
FILES = sorted(path.name for path in FOLDER.glob("*.py"))


# Slow: what is trained by the same code as the configs beside it, with other sizes; the plain
# network on digits is trained by the tests of the engine.
_SIZES = ("_10k", "_cifar100", "_miniimagenet", "resnext_digits")
SMOKES = [
    pytest.param(
        f"{name}:smoke", marks=pytest.mark.slow if any(size in name for size in _SIZES) else ()
    )
    for name in FILES
]
SMOKES += [
    pytest.param(f"coded_imagenet.py:smoke,variant={variant}", marks=pytest.mark.slow)
    for variant in ("c3", "c4")
]


@pytest.mark.parametrize("name", SMOKES)
def test_smoke(name, tmp_path):
    config = configs.load(FOLDER / name)
    assert train(config, str(tmp_path), jax.devices()[:1]) == 0
    assert (tmp_path / "summary.json").exists()


@pytest.mark.parametrize("name", FILES)
def test_full_size_builds_and_says_how_to_run_it(name):
    text = (FOLDER / name).read_text()
    assert f"--config=configs/{name} --workdir=runs/" in text
    config = configs.load(FOLDER / name)
    configs.validate(config, num_devices=8)
    spec = data.spec(None, config.data)
    from branchnets import families

    family = families.create(config, spec)
    usual = branchnets.default_image_shape(config.model.name)
    assert usual == tuple(spec.image_shape) or config.family == "plain"
    assert family.model.num_classes == spec.num_classes


@pytest.mark.parametrize("name", FILES)
def test_several_arguments_and_every_field_can_be_set(name):
    config = configs.load(f"{FOLDER / name}:smoke,seed=3")
    assert config.seed == 3 and config.data.name == "fake"
    for field in ("data.train_size=5", "optimizer.grad_clip=1.0", "bn_group_size=none"):
        configs.apply_overrides(config, [f"--config.{field}"])
    assert config.data.train_size == 5 and config.bn_group_size is None


def test_ratios_from_the_command_line():
    config = configs.load(FOLDER / "coded_digits.py", ["--config.model.active=((10,),(3,3),(3,3))"])
    assert config.model.active == ((10,), (3, 3), (3, 3))


@pytest.mark.parametrize(("variant", "ratios"), [("c3", {24, 16, 8}), ("c4", {16, 8, 4})])
def test_variants_of_appendix_b(variant, ratios):
    from branchnets import families

    config = configs.load(f"{FOLDER / 'coded_imagenet.py'}:variant={variant}")
    family = families.create(config, data.spec(None, config.data))
    assert {scheme.active for scheme in family.schemes.values()} == ratios

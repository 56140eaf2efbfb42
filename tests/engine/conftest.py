"""A small config that every engine test can afford, and changes to runs of it."""

import json
import pathlib

import pytest

from branchnets.engine import config as configs

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="session")
def tiny():
    """Makes a one-block-a-stage coded network on fake 8x8 images; fields may be overridden."""

    def make(**overrides):
        config = configs.load(f"{CONFIGS / 'coded_digits.py'}:smoke")
        config.model.active = ((10,), (5,), (3,))
        config.data.fake_size = 64
        config.batch_size = 16
        config.bn_group_size = 2
        config.log.every_steps = 2
        return configs.apply_overrides(config, overrides)

    return make


@pytest.fixture
def name_classes():
    """Changes the class names that a run has kept; None: it kept none."""

    def change(workdir, names):
        document = json.loads((workdir / "config.json").read_text())
        document["resolved"]["data"].pop("class_names")
        if names is not None:
            document["resolved"]["data"]["class_names"] = names
        (workdir / "config.json").write_text(json.dumps(document))

    return change


_FILE = '''
from branchnets.engine import config as c

def get_config(arg=None):
    """A config of a test."""
    args = c.parse_arg(arg, smoke=False, seed=0, k=8, rate=0.5, connectivity="learned")
    config = c.base("coded")
    config.seed = args.seed
    config.model.name = f"net_{args.k}_{args.connectivity}"
    config.data.name = "digits"
    config.model.ratios = ((1, 2), (3, 4))
    config.epochs = 10
    config.optimizer.weight_decay_exclude = ("bias",)
    config.optimizer.grad_clip = 1.0
    if args.smoke:
        return c.smoke(config, model=dict(depth=1))
    return config
'''


@pytest.fixture
def file(tmp_path):
    """A config file that takes arguments."""
    path = tmp_path / "experiment.py"
    path.write_text(_FILE)
    return path

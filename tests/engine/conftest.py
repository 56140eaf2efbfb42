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

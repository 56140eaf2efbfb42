"""Finished runs that nobody trained: a directory as a run leaves it, with given figures."""

import json
import pathlib

import pytest

from branchnets.engine import config as configs
from branchnets.sweeps import grid
from branchnets.sweeps.fields import Source

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


@pytest.fixture
def make_grid():
    """Makes the grid of a config file of configs/."""

    def make(file, *texts, seeds=None, overrides=()):
        return grid.make(Source(f"{CONFIGS / file}", tuple(overrides)), texts, seeds)

    return make


@pytest.fixture
def finish():
    """Writes what a finished run of a cell would have written."""

    def write(cell, out, accuracy, merits=None, **figures):
        folder = out / cell.name
        folder.mkdir(parents=True)
        raw = {"raw": configs.plain(cell.config), "resolved": {}}
        (folder / "config.json").write_text(json.dumps(raw))
        summary = {
            "seed": cell.seed, "steps": 10, "seconds": 60.0, "test_accuracy": accuracy,
            "environment": {"source": {"commit": "0123456789"}}, **figures,
        }  # fmt: skip
        (folder / "summary.json").write_text(json.dumps(summary))
        if merits is not None:
            (folder / "merits.json").write_text(json.dumps({"step": 10, "merits": merits}))

    return write

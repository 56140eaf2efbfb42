"""The states that runs leave behind, for tests that compare them bit by bit."""

from __future__ import annotations

import json

import jax
import numpy as np

from branchnets.engine import config as configs
from branchnets.engine.saving.checkpoint import Checkpoints
from branchnets.engine.setup import prepare


def final_state(workdir):
    """The newest state of a run, with the optimiser's."""
    document = json.loads((workdir / "config.json").read_text())
    template = prepare(configs.from_plain(document["raw"]), jax.devices()[:1]).abstract_state()
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        return jax.device_get(checkpoints.restore(template)[0])


def assert_same_bits(one, other):
    """Two trees have equal leaves."""
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype and np.array_equal(a, b)

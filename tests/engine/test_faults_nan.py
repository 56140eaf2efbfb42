"""A batch that holds a value that is not a number, through the whole trainer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from engine_commands import ALL

from branchnets.data.device.resident import ResidentInput
from branchnets.engine import train as training
from branchnets.engine.saving.checkpoint import Checkpoints
from branchnets.engine.setup import prepare
from branchnets.errors import TrainingError

ONE = jax.devices()[:1]
#: No step of these runs, which all have one program: another one may round otherwise.
NEVER = 99


@pytest.fixture
def config(tiny):
    return tiny(**{"epochs": 2, "log.every_steps": 3, "checkpoint.every_steps": 2})  # eight steps


def poison(monkeypatch, at):
    """Puts one NaN into one image of the batch of a step."""
    arrays, batch = ResidentInput.arrays, ResidentInput.batch

    def with_step(self, step):
        return {**arrays(self, step), "bad_step": jnp.int32(at)}

    def with_nan(self, given, step, key):
        made = batch(self, given, step, key)
        bad = made["image"].at[3, 2, 1, 0].set(jnp.nan)
        return {**made, "image": jnp.where(step == given["bad_step"], bad, made["image"])}

    monkeypatch.setattr(ResidentInput, "arrays", with_step)
    monkeypatch.setattr(ResidentInput, "batch", with_nan)


def saved(workdir, config):
    """Step -> leaves of the state saved then."""
    template = prepare(config, ONE).abstract_state()
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        return {
            step: [
                np.asarray(leaf) for leaf in jax.tree.leaves(checkpoints.restore(template, step)[0])
            ]
            for step in checkpoints.all_steps()
        }


@pytest.mark.slow
def test_one_bad_batch_stops_the_run_before_anything_of_it_is_saved(
    config, tmp_path, monkeypatch, record_property
):
    with monkeypatch.context() as patch:
        poison(patch, NEVER)
        assert training.train(config, str(tmp_path / "whole"), ONE) == 0
    want = saved(tmp_path / "whole", config)[8]
    # The first, the last; just before and after a save and a look.
    places = [0, 1, 2, 5, 7] if ALL else [0, 5]
    for at in places:
        workdir = tmp_path / str(at)
        with monkeypatch.context() as patch:
            poison(patch, at)
            with pytest.raises(TrainingError, match=rf"update of step {at} was not finite .*grad"):
                training.train(config, str(workdir), ONE)
        found = saved(workdir, config)
        assert max(found, default=0) == at // 2 * 2
        assert all(np.isfinite(leaf).all() for leaves in found.values() for leaf in leaves)
    # Without the bad value the run goes on from there, as if it had never been.
    with monkeypatch.context() as patch:
        poison(patch, NEVER)
        assert training.train(config, str(tmp_path / "5"), ONE) == 0
    for one, other in zip(saved(tmp_path / "5", config)[8], want, strict=True):
        assert one.dtype == other.dtype and np.array_equal(one, other)
    record_property("tried", len(places))
    record_property("note", f"in step {', '.join(map(str, places))} of 8; resumed bit-identical")

"""Runs of several phases: resumed inside any of them, on any number of devices."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from branchnets.engine import config as configs
from branchnets.engine import mesh as meshes
from branchnets.engine import step as steps
from branchnets.engine import train as training
from branchnets.engine.executable import Executables
from branchnets.engine.loop import Loop
from branchnets.engine.saving.checkpoint import Checkpoints
from branchnets.engine.setup import prepare
from branchnets.engine.stopping import PREEMPTED
from branchnets.errors import ConfigError
from branchnets.families.maskconnect import masks

ONE = jax.devices()[:1]
CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
FAN_IN = 2


@pytest.fixture(scope="module")
def phased():
    """Masks learned for an epoch of four steps, then frozen for another, on fake images."""

    def make(**overrides):
        config = configs.load(f"{CONFIGS / 'maskconnect_digits.py'}:smoke,k={FAN_IN}")
        config.model.depths = (1, 1)
        config.model.channels = 8
        config.epochs = 2
        config.maskconnect.phases = (("learn", 1.0), ("tune", 1.0))
        config.schedule.milestones = (1.0,)
        config.data.fake_size = 64
        config.batch_size = 16
        config.bn_group_size = 2
        config.log.every_steps = 4
        config.checkpoint.keep_latest = 9
        return configs.apply_overrides(config, overrides)

    return make


def states(workdir, config):
    """Step -> the state that was saved then, with the optimiser's."""
    template = prepare(config, ONE).abstract_state()
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        return {
            step: jax.device_get(checkpoints.restore(template, step)[0])
            for step in checkpoints.all_steps()
        }


@pytest.fixture(scope="module")
def whole(phased, tmp_path_factory):
    """The states of an uninterrupted run of eight steps."""
    place = tmp_path_factory.mktemp("phases") / "whole"
    assert training.train(phased(), str(place), ONE) == 0
    found = states(place, phased())
    assert set(found) == {4, 8}
    return found


def momentum(state):
    return jax.tree.leaves(state.opt_state["params"])


def test_freezing_writes_the_largest_connections_and_tuning_leaves_them(whole):
    for name, learned in whole[4].params["masks"].items():
        frozen = np.asarray(whole[8].params["masks"][name])
        np.testing.assert_allclose(learned.sum(-1), 1, rtol=1e-6)
        assert not np.isin(learned, (0, 1)).all() and not np.allclose(learned, 0.25)
        np.testing.assert_array_equal(frozen, masks.top(jnp.asarray(learned), FAN_IN))
        assert set(np.unique(frozen)) == {0.0, 1.0} and (frozen.sum(-1) == FAN_IN).all()


def test_the_state_has_one_structure_and_momentum_goes_on(phased, whole):
    one, other = whole[4], whole[8]
    assert jax.tree.structure(one) == jax.tree.structure(other)
    assert [x.shape for x in jax.tree.leaves(one)] == [x.shape for x in jax.tree.leaves(other)]
    family = prepare(phased(), ONE).family
    tune = family.phases(8)[1]
    entered = family.enter_phase(one, tune)
    assert any(np.abs(x).max() > 0 for x in momentum(one) if x.ndim)
    assert all(map(np.array_equal, momentum(entered), momentum(one)))
    assert jax.tree.all(
        jax.tree.map(np.array_equal, entered.params["params"], one.params["params"])
    )


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(3, id="learn", marks=pytest.mark.slow),
        pytest.param(4, id="boundary"),
        pytest.param(6, id="tune"),
    ],
)
def test_a_run_stopped_inside_a_phase_ends_where_an_uninterrupted_one_ends(
    phased, whole, step, tmp_path, monkeypatch, capsys
):
    original = Loop._after_step

    def after(loop):
        original(loop)
        if loop.done == step:
            loop.peers.stop.status = PREEMPTED

    monkeypatch.setattr(Loop, "_after_step", after)
    assert training.train(phased(), str(tmp_path), ONE) == PREEMPTED
    monkeypatch.undo()
    assert training.train(phased(), str(tmp_path), ONE) == 0
    assert f"Resuming {tmp_path} at step {step}" in capsys.readouterr().err
    resumed = states(tmp_path, phased())
    assert step in resumed
    for one, other in zip(jax.tree.leaves(resumed[8]), jax.tree.leaves(whole[8]), strict=True):
        assert one.dtype == other.dtype and np.array_equal(one, other)


def trained(config, devices, phase=0, count=2):
    """The state after a few steps of a phase on some devices."""
    setup = prepare(config, devices)
    step_fn = steps.make_step(
        setup.family,
        setup.optimizers,
        setup.inputs.batch,
        setup.family.phases(8)[phase],
        accumulate=config.optimizer.accumulate_steps,
        mesh=setup.mesh,
    )
    state = setup.init_state()
    tally = steps.empty_tally(jax.eval_shape(step_fn, state, setup.inputs.arrays(0))[1])
    compiled = steps.compile_step(step_fn, setup.mesh)
    for index in range(count):
        state, tally, _ = compiled(state, setup.inputs.arrays(index), tally)
    assert int(tally.first_bad_step) < 0
    return jax.device_get(state)


@pytest.mark.parametrize("accumulate", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_eight_devices_learn_the_masks_that_one_learns(phased, accumulate):
    fields = {"optimizer.accumulate_steps": accumulate, "bn_group_size": 2 // accumulate}
    one = trained(phased(**fields), ONE)
    eight = trained(phased(**fields), jax.devices())
    assert jax.device_count() == 8
    for a, b in zip(jax.tree.leaves(one.variables), jax.tree.leaves(eight.variables), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * max(np.abs(b).max(), 1))
    moved = [np.abs(m - 0.25).max() for m in one.params["masks"].values()]
    assert min(moved) > 1e-3


def test_the_draw_does_not_depend_on_where_it_is_made(phased):
    config = phased()
    connections = []
    for devices in (ONE, jax.devices()):
        setup = prepare(config, devices)
        state = setup.init_state()
        images = jax.device_put(jnp.ones((16, 8, 8, 1)), meshes.spread(setup.mesh))
        for key in (3, 4):
            draw = jax.jit(
                lambda variables, images, key, model=setup.family.model: (
                    model.apply(
                        variables, images, connect="sample", rngs={"masks": key}
                    ).connections
                )
            )(state.variables, images, jax.random.key(key))
            connections.append(jax.device_get(draw))
    (one, other), (eight, another) = connections[:2], connections[2:]
    for name in one:
        np.testing.assert_array_equal(one[name], eight[name])
        np.testing.assert_array_equal(other[name], another[name])
    assert any(not np.array_equal(one[name], other[name]) for name in one)


def test_a_phase_that_there_is_too_little_memory_for_loses_no_step(phased, tmp_path, monkeypatch):
    original = Executables.get

    def get(executables, phase, arrays):
        if executables._made and phase.mode not in executables._made:
            raise ConfigError("this run needs 2 GB")
        return original(executables, phase, arrays)

    monkeypatch.setattr(Executables, "get", get)
    config = phased()
    config.checkpoint.every_epochs = 2
    with pytest.raises(ConfigError, match="needs 2 GB"):
        training.train(config, str(tmp_path), ONE)
    assert Checkpoints(tmp_path / "checkpoints", read_only=True).all_steps() == [4]

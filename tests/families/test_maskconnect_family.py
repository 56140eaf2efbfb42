"""The family: phases, freezing, updates of the masks, pruning, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from branchnets import data, families
from branchnets.engine import config as configs
from branchnets.engine import state as states
from branchnets.engine.evaluate import mean
from branchnets.engine.step import make_step
from branchnets.errors import UserError
from branchnets.families.base import Context
from branchnets.families.maskconnect import connectivity
from branchnets.families.maskconnect.model import ModuleSpec
from branchnets.families.study import Subject

SPEC = data.DataSpec((16, 16, 1), 10, tuple("abcdefghij"))
SMALL = {
    "model.depths": (1, 2),
    "model.branches": 4,
    "model.width": 2,
    "model.channels": 16,
    "model.fan_in": 2,
}


def create(**overrides):
    config = configs.base("maskconnect")
    config.model.name = "maskconnect_digits"
    config.epochs = 10
    config.maskconnect.phases = (("learn", 4.0), ("tune", 6.0))
    config.optimizer.learning_rate = 0.05
    return config, families.create(configs.apply_overrides(config, {**SMALL, **overrides}), SPEC)


def trainer(family, config, accumulate=1):
    optimizers = {name: family.optimizer(name, optax.sgd(0.05, 0.9)) for name in family.trainable}
    state = states.create(family, optimizers, (16, 16, 1), 0)
    images = jax.random.normal(jax.random.key(3), (8, 16, 16, 1))
    labels = jnp.arange(8) % 10

    arrays = {"key": jax.random.key_data(jax.random.key(0))}

    def batch(arrays, step, key):
        return {"image": images, "label": labels}

    def run(state, phase, steps=1):
        step = jax.jit(make_step(family, optimizers, batch, phase, accumulate=accumulate))
        for _ in range(steps):
            state, tally = step(state, arrays)
        return state, tally

    return state, run


def test_phases_are_those_of_the_config_in_steps():
    _, family = create()
    learn, tune = family.phases(1000)
    assert (learn.mode, learn.steps, tune.mode, tune.steps) == ("learn", 400, "tune", 600)
    assert [p.mode for p in create(**{"model.connectivity": "random"})[1].phases(7)] == ["tune"]


def test_masks_have_no_running_average():
    _, family = create()
    state = jax.jit(lambda: states.create(family, {}, (16, 16, 1), 0, averaged=True))()
    assert state.ema.keys() == {"params", "batch_stats"}
    assert state.averaged["masks"] is state.params["masks"]
    fixed = create(**{"model.connectivity": "random"})[1]
    assert fixed.averaged == ("params", "batch_stats")


def test_masks_move_while_learning_and_stay_when_frozen():
    config, family = create()
    state, run = trainer(family, config)
    learn, tune = family.phases(10)
    learned, tally = run(state, learn, 3)
    for name, mask in learned.params["masks"].items():
        assert not np.array_equal(mask, state.params["masks"][name])
        np.testing.assert_allclose(np.asarray(mask).sum(-1), 1, atol=1e-6)
        assert (np.asarray(mask) >= 0).all()
    assert {f"mask_entropy/{n}" for n in learned.params["masks"]} <= set(tally.metrics)

    frozen = family.enter_phase(learned, tune)
    for name, mask in frozen.params["masks"].items():
        top = np.argsort(-np.asarray(learned.params["masks"][name]), axis=-1, kind="stable")[:, :2]
        assert set(np.unique(mask)) == {0.0, 1.0}
        for j, row in enumerate(top):
            assert set(np.flatnonzero(mask[j])) == set(row)
    assert family.enter_phase(frozen, tune).params["masks"].keys() == frozen.params["masks"].keys()
    jax.tree.map(
        np.testing.assert_array_equal,
        family.enter_phase(frozen, tune).params["masks"],
        frozen.params["masks"],
    )
    tuned, _ = run(frozen, tune, 2)
    jax.tree.map(np.testing.assert_array_equal, tuned.params["masks"], frozen.params["masks"])
    moved = jax.tree.map(
        lambda a, b: float(jnp.abs(a - b).max()), tuned.params["params"], frozen.params["params"]
    )
    assert max(jax.tree.leaves(moved)) > 0
    assert jax.tree.structure(tuned) == jax.tree.structure(state)


def test_one_draw_serves_all_parts_of_a_batch():
    _, family = create()
    key = jax.random.key(1)
    whole = Context(jnp.zeros((), jnp.int32), family.phases(10)[0], key)
    parts = [
        Context(whole.step, whole.phase, jax.random.fold_in(key, i), step_key=key) for i in range(2)
    ]
    draws = [c.step_rng("masks") for c in (whole, *parts)]
    assert all(
        jnp.array_equal(jax.random.key_data(d), jax.random.key_data(draws[0])) for d in draws
    )
    own = [jax.random.key_data(c.rng("masks")) for c in parts]
    assert not jnp.array_equal(*own)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"maskconnect.phases": (("learn", 4.0),)}, "add up to 4 epochs, the run has 10"),
        ({"maskconnect.phases": (("tune", 4.0), ("learn", 6.0))}, "cannot follow one that has"),
        ({"maskconnect.phases": (("learns", 10.0),)}, "Did you mean 'learn'"),
        ({"maskconnect.phases": (("learn", 0.0), ("tune", 10.0))}, "more than 0"),
        ({"maskconnect.phases": ()}, "takes pairs of a mode"),
        ({"maskconnect.mask_learning_rate": -1.0}, "a number above 0"),
        ({"maskconnect.mask_learning_rate": 0.0}, "model.connectivity='random'"),
        ({"maskconnect.mask_learning_rate": float("nan")}, "a number above 0"),
        ({"model.fan_in": 9}, "1 to 4 others"),
    ],
)
def test_what_cannot_run_is_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        create(**overrides)


def test_a_phase_of_no_step_is_refused():
    """It would be passed over, and its masks never frozen."""
    for plan in ((("learn", 9.99), ("tune", 0.01)), (("learn", 0.01), ("tune", 9.99))):
        _, family = create(**{"maskconnect.phases": plan})
        with pytest.raises(ValueError, match="lasts 0.01 epochs, which is no step"):
            family.phases(20)
        assert [phase.steps for phase in family.phases(2000)].count(2) == 1


def test_a_network_of_one_module_has_no_masks_to_train():
    _, family = create(**{"model.depths": (1,)})
    assert family.trainable == ("params",)


def test_alive_is_transitive():
    modules = {name: ModuleSpec(16, 3, 2) for name in ("a", "b", "c")}
    connections = {
        "b": np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]]),  # each of b reads its own of a
        "c": np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0]]),  # nobody reads b's last
    }
    kept = connectivity.alive(modules, connections)
    assert {n: k.tolist() for n, k in kept.items()} == {"a": [0, 1], "b": [0, 1], "c": [0, 1, 2]}
    assert "■■□  2 of 3" in connectivity.render(modules, kept)


def test_entropy_is_one_for_uniform_and_zero_for_one():
    np.testing.assert_allclose(connectivity.entropy(jnp.full((2, 4), 0.25)), 1, rtol=1e-6)
    np.testing.assert_allclose(connectivity.entropy(jnp.eye(4)), 0, atol=1e-6)


def subject(variables):
    return Subject(variables, {}, (16, 16, 1), SPEC.class_names, "fake", lambda name: None)


def test_a_run_that_is_still_learning_cannot_be_pruned():
    _, family = create()
    variables = family.model.init(jax.random.key(0), jnp.zeros((1, 16, 16, 1)))
    with pytest.raises(UserError, match="still being learned.*mode 'tune'"):
        family.slim(subject(variables))


@pytest.mark.parametrize("kind", ["full", "real"])
def test_what_has_no_branch_to_take_out_says_so(kind):
    _, family = create(**{"model.connectivity": kind})
    with pytest.raises(UserError, match=f"connectivity '{kind}'"):
        family.slim(subject({}))


def test_there_is_nothing_to_request():
    _, family = create()
    with pytest.raises(UserError, match="unknown slimming request 'classes'"):
        family.take_out({}, classes=(0,))


@pytest.mark.parametrize("kind", ["learned", "real", "random", "ones", "full"])
def test_every_connectivity_trains_a_step_and_evaluates(kind):
    config, family = create(**{"model.connectivity": kind})
    state, run = trainer(family, config)
    state, tally = run(state, family.phases(10)[0])
    assert int(tally.first_bad_step) < 0
    batch = {"image": jnp.ones((2, 16, 16, 1)), "label": jnp.zeros(2, jnp.int32)}
    found = {
        name: mode(state.variables, state.extra, batch, jax.random.key(0))
        for name, mode in family.eval_modes().items()
    }
    assert all("accuracy" in metrics for metrics in found.values())
    assert ("sampled" in found) == (kind == "learned")
    figures, text = family.summary({name: mean(*pair) for name, pair in found[""].items()})
    assert bool(figures) == bool(text) == (kind in ("learned", "random", "ones"))

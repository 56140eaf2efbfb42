"""Batch-norm statistics over training batches: equal to a hand computation, for every family."""

import dataclasses
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from branchnets import data, families, registry
from branchnets.data.device.augment import Augment
from branchnets.data.device.resident import ResidentInput
from branchnets.engine import config as configs
from branchnets.engine import mesh as meshes
from branchnets.engine.reestimate import phase_at, reestimate
from branchnets.engine.state import TrainState
from branchnets.errors import ConfigError, TrainingError
from branchnets.families import base
from branchnets.nn.norm import BatchNorm

PHASE = base.Phase("train", 10)


@flax.struct.dataclass
class Output:
    logits: jax.Array


class Tiny(nn.Module):
    """One weight, one batch norm."""

    bn_group_size: int | None = None
    bn_momentum: float = 0.9

    @nn.compact
    def __call__(self, images, train=False):
        x = images * self.param("weight", nn.initializers.ones, ())
        x = BatchNorm(self.bn_group_size, self.bn_momentum, name="bn")(x, train=train)
        return Output(x.mean((1, 2)))


@dataclasses.dataclass(frozen=True)
class TinyFamily(base.Family):
    """Its loss is the sum of all it sees."""

    model: Any

    def loss(self, variables, extra, batch, context):
        output, mutated = self.model.apply(
            variables, batch["image"], train=True, mutable=["batch_stats"]
        )
        return {"sum": jnp.sum(output.logits)}, base.Aux({}, mutated)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (20, 2, 2, 1)).astype(np.uint8)


def inputs_of(images, devices):
    split = data.Split(images, np.zeros(len(images), np.int32))
    dataset = data.Dataset("fake", ("a",), {"train": split}, (0.5,), (0.25,))
    mesh = meshes.make_mesh(jax.devices()[:devices])
    return ResidentInput(split, dataset, Augment(), 8, 7, mesh), mesh


def state_of(mesh, weight):
    norm = {"scale": jnp.ones(1), "bias": jnp.zeros(1)}
    old = {"mean": jnp.full(1, 9.0), "var": jnp.full(1, 9.0)}
    state = TrainState(
        step=jnp.asarray(3),
        params={"params": {"weight": jnp.asarray(weight), "bn": norm}},
        model_state={"batch_stats": {"bn": old}},
        opt_state={},
        extra={},
    )
    return jax.device_put(state, meshes.replicated(mesh))


def by_hand(inputs, steps, group, weight):
    """(mean, var): over groups of a batch, then over batches, from the batches themselves."""
    found = []
    for step in steps:
        batch = inputs.batch(inputs.arrays(step), jnp.asarray(step), jax.random.key(0))
        x = weight * np.asarray(batch["image"], np.float64).reshape(8 // group, -1)
        found.append((x.mean(1).mean(), x.var(1).mean()))
    return np.mean(found, axis=0)


@pytest.mark.parametrize(
    ("group_size", "parts", "group", "devices"),
    [(None, 1, 8, 1), (2, 1, 2, 2), (None, 2, 4, 1)],
)
def test_statistics_are_those_by_hand(images, group_size, parts, group, devices):
    inputs, mesh = inputs_of(images, devices)
    state = state_of(mesh, 2.0)
    family, steps = TinyFamily(Tiny(group_size)), range(3, 6)  # over the end of an epoch
    found = reestimate(family, state, inputs, PHASE, steps, mesh, parts)
    mean, var = by_hand(inputs, steps, group, 2.0)
    statistics = found.model_state["batch_stats"]["bn"]
    np.testing.assert_allclose(statistics["mean"], [mean], rtol=1e-5)
    np.testing.assert_allclose(statistics["var"], [var], rtol=1e-5)
    assert found.params is state.params and int(found.step) == 3


def test_running_averages_of_the_weights_get_statistics_of_their_own(images):
    inputs, mesh = inputs_of(images, 1)
    own = state_of(mesh, 3.0).variables
    state = dataclasses.replace(state_of(mesh, 2.0), ema=own)
    found = reestimate(TinyFamily(Tiny()), state, inputs, PHASE, range(2), mesh)
    mean, _ = by_hand(inputs, range(2), 8, 3.0)
    np.testing.assert_allclose(found.averaged["batch_stats"]["bn"]["mean"], [mean], rtol=1e-5)
    newest = found.variables["batch_stats"]["bn"]["mean"]
    np.testing.assert_allclose(newest, [2 / 3 * mean], rtol=1e-5)
    only_weights = dataclasses.replace(state, ema={"params": own["params"]})
    found = reestimate(TinyFamily(Tiny()), only_weights, inputs, PHASE, range(2), mesh)
    np.testing.assert_allclose(found.model_state["batch_stats"]["bn"]["mean"], [mean], rtol=1e-5)


def test_what_cannot_be_estimated_is_told(images):
    inputs, mesh = inputs_of(images, 1)
    state = state_of(mesh, 2.0)
    with pytest.raises(ConfigError, match="no batch norm"):
        none = dataclasses.replace(state, model_state={})
        reestimate(TinyFamily(Tiny()), none, inputs, PHASE, range(2), mesh)
    with pytest.raises(TrainingError, match="2 training batches are not finite"):
        bad = state_of(mesh, np.inf)
        reestimate(TinyFamily(Tiny()), bad, inputs, PHASE, range(2), mesh)


def test_the_phase_of_a_checkpoint():
    phases = (base.Phase("learn", 4), base.Phase("tune", 2))
    names = [phase_at(phases, step).name for step in (0, 4, 5, 6, 99)]
    assert names == ["learn", "learn", "tune", "tune", "tune"]


@pytest.mark.parametrize("name", sorted(registry.FAMILIES))
def test_every_layer_of_every_family_forgets_older_statistics(name):
    """With momentum 0 a batch leaves its own statistics, wherever they began."""
    config = configs.base(name)
    config.model.name = {"plain": "resnext_digits", "coded": "coded_resnext_digits"}.get(
        name, f"{name}_digits"
    )
    for field, value in (("depths", (1, 1)), ("active", ((10,), (5,), (3,)))):
        if field in config.model:
            config.model[field] = value
    family = families.create(config, data.DataSpec((8, 8, 1), 10, tuple("abcdefghij")))
    family = family.with_momentum(0.0)
    shapes = jax.eval_shape(family.model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    random = np.random.default_rng(0)  # any weights will do
    variables = jax.tree.map(
        lambda x: jnp.asarray(random.uniform(0, 0.1, x.shape), x.dtype), shapes
    )
    extra = family.init_extra(variables)
    batch = {
        "image": jax.random.normal(jax.random.key(1), (4, 8, 8, 1)),
        "label": jnp.arange(4),
    }
    context = base.Context(jnp.asarray(0), family.phases(4)[-1], jax.random.key(2))

    @jax.jit
    def after(value):
        stats = jax.tree.map(lambda x: jnp.full_like(x, value), variables["batch_stats"])
        given = {**variables, "batch_stats": stats}
        return family.loss(given, extra, batch, context)[1].mutated["batch_stats"]

    found, other = jax.tree.leaves(after(0.0)), jax.tree.leaves(after(1.0))
    assert len(found) == len(jax.tree.leaves(variables["batch_stats"])) > 0
    for a, b in zip(found, other, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)

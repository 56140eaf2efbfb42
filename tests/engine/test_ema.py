"""Running averages: by hand, beside a training that they leave alone, and where they are kept."""

import dataclasses

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from branchnets.engine import ema
from branchnets.engine import state as states
from branchnets.engine.leaves import named
from branchnets.engine.setup import prepare
from branchnets.engine.step import make_step
from branchnets.families import base, objectives

ARRAYS = {"key": jax.random.key_data(jax.random.key(0))}


@flax.struct.dataclass
class Output:
    logits: jax.Array


class Toy(nn.Module):
    @nn.compact
    def __call__(self, images, train=False):
        x = nn.Dense(4, name="hidden")(images.reshape(len(images), -1))
        x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        return Output(nn.Dense(3, name="head")(x))


@dataclasses.dataclass(frozen=True)
class ToyFamily(base.Family):
    def loss(self, variables, extra, batch, context):
        output, mutated = self.model.apply(
            variables, batch["image"], train=True, mutable=["batch_stats"]
        )
        metrics = objectives.classification_metrics(output.logits, batch)
        return {"class": self.class_loss(output.logits, batch)}, base.Aux(metrics, mutated)


def train(averaged, accumulate=1, decay=0.7, count=3):
    """The states of a short training, the first one included."""
    family, optimizers = ToyFamily(Toy()), {"params": optax.sgd(0.5, 0.9)}

    def batch(arrays, step, key):
        images = jax.random.normal(key, (8, 2, 2, 1))
        return {"image": images, "label": jnp.arange(8) % 3}

    step = make_step(
        family, optimizers, batch, base.Phase("train", 4), accumulate=accumulate, ema_decay=decay
    )
    step = jax.jit(step)
    found = [states.create(family, optimizers, (2, 2, 1), 0, averaged=averaged)]
    for _ in range(count):
        found.append(step(found[-1], ARRAYS)[0])
    return jax.device_get(found)


def test_averages_by_hand():
    values = [3.0, -1.0, 4.0, 1.0]
    found = {"params": jnp.array([10.0])}
    wanted = 10.0
    for t, value in enumerate(values):
        decay = min(0.2, (1 + t) / (10 + t))  # 1/10, 2/11, then 0.2
        wanted = decay * wanted + (1 - decay) * value
        newest = {"params": jnp.array([value]), "masks": jnp.zeros(3)}
        found = ema.advance(found, newest, jnp.asarray(t), 0.2)
        assert found.keys() == {"params"}
        assert float(found["params"][0]) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_weights_and_statistics_are_averaged_once_an_update(accumulate):
    found = train(True, accumulate)
    wanted = found[0].variables
    assert wanted.keys() == {"params", "batch_stats"}
    for t, state in enumerate(found[1:]):
        decay = min(0.7, (1 + t) / (10 + t))
        wanted = jax.tree.map(lambda a, x, d=decay: d * a + (1 - d) * x, wanted, state.variables)
        assert jax.tree.structure(state.ema) == jax.tree.structure(wanted)
        for got, want in zip(jax.tree.leaves(state.ema), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
        assert state.averaged == state.ema


def test_training_is_the_same_with_and_without_averages():
    off, on = train(False)[-1], train(True)[-1]
    assert off.ema == {} and off.averaged == off.variables
    without = dataclasses.replace(on, ema={})
    assert jax.tree.structure(off) == jax.tree.structure(without)
    # Two programs: what the compiler fuses otherwise is rounded otherwise.
    for one, other in zip(jax.tree.leaves(off), jax.tree.leaves(without), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_a_state_without_averages_has_the_leaves_that_it_always_had(tiny):
    one = jax.devices()[:1]
    without, with_them = (
        named(prepare(tiny(**{"ema.decay": decay}), one).abstract_state()) for decay in (0.0, 0.9)
    )
    assert {path[0] for path in without} == {"step", "params", "model_state", "opt_state"}
    more = with_them.keys() - without.keys()
    assert without.keys() < with_them.keys() and {path[0] for path in more} == {"ema"}

"""The gradient of every mask entry in a training step: <dl/dx_j, y_k>, however it is computed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from branchnets import data, families
from branchnets.engine import config as configs
from branchnets.engine import state as states
from branchnets.engine.step import make_step
from branchnets.families.base import Context
from branchnets.families.maskconnect import masks
from branchnets.families.objectives import cross_entropy

SPEC = data.DataSpec((4, 4, 1), 10, tuple("abcdefghij"))
IMAGES = jax.random.normal(jax.random.key(3), (8, 4, 4, 1))
LABELS = jnp.arange(8) % 10
RATE = 0.2


@pytest.fixture(scope="module")
def family():
    """Three branches a module, two inputs each, four images a batch-norm group."""
    config = configs.base("maskconnect")
    config.model.name = "maskconnect_digits"
    fields = {"depths": (1, 2), "branches": 3, "width": 2, "channels": 8, "fan_in": 2}
    changes = {f"model.{name}": value for name, value in fields.items()}
    config.bn_group_size = 4
    return families.create(configs.apply_overrides(config, changes), SPEC)


@pytest.fixture(scope="module")
def state(family):
    """Before the first step, with last batch norms that let the branches through."""
    optimizers = {name: family.optimizer(name, optax.sgd(0.05)) for name in family.trainable}
    start = jax.jit(lambda: states.create(family, optimizers, SPEC.image_shape, 0))()
    params = jax.tree.map(lambda x: x + 0.1, start.params["params"])
    return start.replace(params={**start.params, "params": params})


def inner_products(family, variables, images, labels, key, monkeypatch):
    """Module name -> <dl/dx_j, y_k> of the loss with one draw, without any gradient of a mask.

    Every mixed input x gets a zero added, of which the gradient is dl/dx; the streams y that are
    mixed are kept.
    """
    read = []

    def run(added):
        read.clear()

        def mix(streams, mask, inputs=None):
            assert inputs is None  # a sum
            index = len(read)
            read.append(streams)
            mixed = jnp.einsum("bhwkc,jk->bhwjc", streams, jax.lax.stop_gradient(mask))
            return mixed if added is None else mixed + added[index]

        with monkeypatch.context() as patch:
            patch.setattr(masks, "mix", mix)
            output, _ = family.model.apply(
                variables,
                images,
                train=True,
                mutable=["batch_stats"],
                connect="sample",
                rngs={"masks": key},
            )
        return jnp.mean(cross_entropy(output.logits, labels)), list(read)

    _, streams = jax.eval_shape(lambda: run(None))
    zeros = [jnp.zeros(y.shape) for y in streams]  # as many branches read as are read
    gradients, streams = jax.jit(jax.grad(run, has_aux=True))(zeros)
    return {
        name: jnp.einsum("bhwjc,bhwkc->jk", dx, y)
        for name, dx, y in zip(variables["masks"], gradients, streams, strict=True)
    }


@pytest.mark.parametrize("parts", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_step_moves_every_entry_by_its_inner_product(family, state, parts, monkeypatch):
    """Parts of an accumulated batch take one draw: their gradients are of one network."""
    learn = family.phases(10)[0]
    arrays = {"key": jax.random.key_data(jax.random.key(0))}
    optimizers = {name: family.optimizer(name, optax.sgd(0.05)) for name in family.trainable}
    step = make_step(
        family,
        optimizers,
        lambda arrays, step, key: {"image": IMAGES, "label": LABELS},
        learn,
        accumulate=parts,
    )
    moved, _ = jax.jit(step)(state, arrays)

    key = jax.random.fold_in(jax.random.key(0), state.step)
    draw = Context(state.step, learn, key).step_rng("masks")
    expected = [
        inner_products(family, state.variables, images, labels, draw, monkeypatch)
        for images, labels in zip(jnp.split(IMAGES, parts), jnp.split(LABELS, parts), strict=True)
    ]
    chosen = jax.jit(
        lambda: (
            family.model.apply(
                state.variables, IMAGES[:1], connect="sample", rngs={"masks": draw}
            ).connections
        )
    )()
    for name, before in state.params["masks"].items():
        gradient = sum(found[name] for found in expected) / parts
        wanted = masks.project(before - RATE * gradient)
        np.testing.assert_allclose(moved.params["masks"][name], wanted, rtol=1e-3, atol=1e-5)
        left_out = np.asarray(chosen[name]) == 0
        assert left_out.any() and np.abs(np.asarray(gradient)[left_out]).min() > 1e-7

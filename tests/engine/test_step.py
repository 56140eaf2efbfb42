"""The training step on one device and on eight."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from branchnets.engine import mesh as meshes
from branchnets.engine import step as steps
from branchnets.engine.setup import prepare
from branchnets.families.base import Phase


def build(config, devices):
    setup = prepare(config, devices)
    step_fn = steps.make_step(
        setup.family,
        setup.optimizers,
        setup.inputs.batch,
        Phase("train", 4),
        accumulate=config.optimizer.accumulate_steps,
        mesh=setup.mesh,
        ema_decay=config.ema.decay,
    )
    return setup, step_fn


def run(config, devices, count=2):
    setup, step_fn = build(config, devices)
    state = setup.init_state()
    shape = jax.eval_shape(step_fn, state, setup.inputs.arrays(0))[1]
    tally = steps.empty_tally(shape)
    compiled = steps.compile_step(step_fn, setup.mesh)
    for index in range(count):
        state, tally, _ = compiled(state, setup.inputs.arrays(index), tally)
    return jax.device_get(state), jax.device_get(tally)


def assert_close(one, other, tolerance):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance * max(np.abs(b).max(), 1))


def test_eight_devices_give_what_one_gives(tiny):
    config = tiny(**{"ema.decay": 0.9})
    one, tally = run(config, jax.devices()[:1])
    eight, spread_tally = run(config, jax.devices())
    assert one.step == eight.step == 2
    assert_close(one.variables, eight.variables, 1e-4)
    assert one.ema.keys() == one.variables.keys()
    assert_close(one.ema, eight.ema, 1e-4)
    assert_close(tally.metrics, spread_tally.metrics, 1e-4)
    assert tally.first_bad_step == -1


def test_accumulation_with_groups_inside_a_part_gives_the_same_update(tiny):
    # Dropping draws other masks in each part, and the statistics move on: compare the rest.
    fields = {"model.drop_rate": 0.0, "optimizer.weight_decay": 0.0}
    whole, _ = run(tiny(**fields), jax.devices()[:1], 1)
    parts, tally = run(tiny(**fields, **{"optimizer.accumulate_steps": 2}), jax.devices()[:1], 1)
    assert_close(whole.params, parts.params, 1e-5)
    assert tally.metrics["accuracy"][1] == 16


@pytest.mark.slow  # test_phases has the same of another family
def test_accumulation_works_spread_over_devices(tiny):
    config = tiny(**{"optimizer.accumulate_steps": 2, "bn_group_size": 1})
    one, _ = run(config, jax.devices()[:1], 1)
    eight, _ = run(config, jax.devices(), 1)
    assert_close(one.params, eight.params, 1e-4)


def collectives(setup, function, *args):
    text = jax.jit(function).lower(*args).compile().as_text()
    return re.findall(r" = (.*?) (all-reduce|all-gather|all-to-all|collective-permute)\(", text)


@pytest.mark.parametrize(("group", "expected"), [(2, 0), (None, 1)])
def test_grouped_statistics_add_no_collective_to_the_forward_pass(tiny, group, expected):
    setup, _ = build(tiny(bn_group_size=group), jax.devices())
    state = setup.init_state()
    images = jax.device_put(jnp.ones((16, 8, 8, 1)), meshes.spread(setup.mesh))

    def forward(variables, images):
        return setup.family.model.apply(
            variables, images, train=True, mutable=["batch_stats"], rngs={"drop": jax.random.key(0)}
        )[0].logits

    found = collectives(setup, forward, state.variables, images)
    assert bool(found) == bool(expected)


def test_grouped_statistics_leave_only_gradient_reductions_to_the_backward_pass(tiny):
    setup, _ = build(tiny(), jax.devices())
    state = setup.init_state()
    images = jax.device_put(jnp.ones((16, 8, 8, 1)), meshes.spread(setup.mesh))

    def loss(params, images):
        output, _ = setup.family.model.apply(
            {**params, **state.model_state},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"drop": jax.random.key(0)},
        )
        return jnp.sum(output.logits**2)

    found = collectives(setup, jax.grad(loss), state.params, images)
    assert found and {kind for _, kind in found} == {"all-reduce"}
    # What is reduced is the gradient, about as many numbers as there are parameters: more by those
    # of the Gram matrices, and by the zeros of block-diagonal kernels where those are in use.
    sizes = [
        int(np.prod([int(n) for n in dims.split(",") if n]))
        for shape, _ in found
        for dims in re.findall(r"f32\[([\d,]*)\]", shape)
    ]
    parameters = sum(x.size for x in jax.tree.leaves(state.params))
    assert parameters <= sum(sizes) < 1.25 * parameters


def test_groups_of_an_eighth_are_the_statistics_of_each_device(tiny):
    config = tiny()
    setup, _ = build(config, jax.devices()[:1])
    state = setup.init_state()
    images = jax.random.normal(jax.random.key(0), (16, 8, 8, 1))

    model = setup.family.model
    assert model.bn_group_size == 2 and model.drop_rate == 0.1
    quiet = model.clone(drop_rate=0.0)

    @jax.jit
    def apply(images):
        return quiet.apply(state.variables, images, train=True, mutable=["batch_stats"])

    together, stats = apply(images)
    alone = [apply(part) for part in jnp.split(images, 8)]
    logits = jnp.concatenate([output.logits for output, _ in alone])
    np.testing.assert_allclose(together.logits, logits, atol=1e-5)
    mean = jax.tree.map(lambda *x: jnp.mean(jnp.stack(x), 0), *[s for _, s in alone])
    assert_close(stats, mean, 1e-5)


def test_an_update_that_is_not_finite_is_discarded_and_named(tiny):
    config = tiny(**{"ema.decay": 0.9})  # the averages are left alone too
    setup = prepare(config, jax.devices()[:1])

    def poisoned(arrays, step, key):
        batch = setup.inputs.batch(arrays, step, key)
        batch["image"] = jnp.where(step == 1, jnp.nan, batch["image"])
        return batch

    step_fn = steps.make_step(
        setup.family,
        setup.optimizers,
        poisoned,
        Phase("train", 4),
        mesh=setup.mesh,
        ema_decay=config.ema.decay,
    )
    state = setup.init_state()
    tally = steps.empty_tally(jax.eval_shape(step_fn, state, setup.inputs.arrays(0))[1])
    compiled = steps.compile_step(step_fn, setup.mesh)
    state, tally, _ = compiled(state, setup.inputs.arrays(0), tally)
    before = jax.device_get(state)
    state, tally, _ = compiled(state, setup.inputs.arrays(1), tally)
    after = jax.device_get(state)
    assert after.step == 2 and tally.first_bad_step == 1
    # Not "class": on CPU, XLA's maximum turns nan into the other number, here in the last ReLU.
    assert {n for n, bad in tally.bad.items() if bad} >= {"code", "gradient", "parameters"}
    same = jax.tree.map(np.array_equal, before.replace(step=0), after.replace(step=0))
    assert all(jax.tree.leaves(same)) and before.ema
    state, tally, _ = compiled(state, setup.inputs.arrays(2), tally)
    assert tally.first_bad_step == 1  # the first one stays
    assert np.isfinite(tally.metrics["loss"][0])

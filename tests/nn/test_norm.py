"""Batch norm: closed forms, its hand-written gradient, statistics groups, padding."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from branchnets.nn.norm import BatchNorm, apply_running, batch_norm

SHAPE = (8, 3, 3, 5)


def plain(x, scale, bias, mask=None, groups=1, epsilon=1e-5, relu=False):
    """The definition, two-pass, group by group."""
    mask = jnp.ones(x.shape[0]) if mask is None else mask
    parts = []
    for part, w in zip(jnp.split(x, groups), jnp.split(mask, groups), strict=True):
        w = w.reshape(-1, *(1,) * (x.ndim - 1)) * jnp.ones_like(part)
        axes = tuple(range(x.ndim - 1))
        total = jnp.maximum(w.sum(axes), 1)
        mean = (w * part).sum(axes) / total
        var = (w * (part - mean) ** 2).sum(axes) / total
        var = jnp.where(w.sum(axes) > 0, var, 1)
        parts.append((part - mean) / jnp.sqrt(var + epsilon) * scale + bias)
    y = jnp.concatenate(parts)
    return jnp.maximum(y, 0) if relu else y


def arguments(shape=SHAPE, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(1), 4)
    x = (2 * jax.random.normal(keys[0], shape, jnp.float32) + 0.7).astype(dtype)
    scale = 1 + 0.3 * jax.random.normal(keys[1], shape[-1:])
    bias = 0.2 * jax.random.normal(keys[2], shape[-1:])
    return x, scale, bias, jax.random.normal(keys[3], shape, jnp.float32).astype(dtype)


def test_closed_form():
    x = jnp.array([[1.0, 0.0], [3.0, 0.0], [0.0, 10.0], [0.0, 14.0]])
    y, statistics = batch_norm(
        x, jnp.array([2.0, 1.0]), jnp.array([1.0, 0.0]), group_size=2, epsilon=0.0 + 1e-12
    )
    np.testing.assert_allclose(statistics.mean, [[2, 0], [0, 12]])
    np.testing.assert_allclose(statistics.var, [[1, 0], [0, 4]], atol=1e-6)
    np.testing.assert_allclose(statistics.examples, [2, 2])
    np.testing.assert_allclose(y, [[-1, 0], [3, 0], [1, -1], [1, 1]], rtol=1e-5)


MASKS = {
    "none": None,
    "tail": [1, 1, 1, 1, 1, 1, 1, 0],
    "spread": [1, 0, 1, 1, 0, 1, 1, 1],
    "empty group": [1, 1, 1, 0, 0, 0, 0, 0],
}


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(
    "groups,mask", [(1, "none"), (4, "none"), (1, "tail"), (2, "spread"), (4, "empty group")]
)
def test_equals_the_definition_and_its_autodiff(groups, mask, relu):
    x, scale, bias, dy = arguments()
    mask = None if MASKS[mask] is None else jnp.array(MASKS[mask], jnp.float32)

    def ours(x, scale, bias):
        return batch_norm(
            x, scale, bias, group_size=8 // groups, mask=mask, epsilon=1e-3, relu=relu
        )[0]

    def definition(x, scale, bias):
        return plain(x, scale, bias, mask, groups, 1e-3, relu)

    got, want = jax.jit(lambda *a: tuple(with_gradients(f, dy, *a) for f in (ours, definition)))(
        x, scale, bias
    )
    for g, w in zip(got, want, strict=True):
        size = max(1.0, float(jnp.abs(w).max()))
        np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-5 * size)


def with_gradients(f, dy, *operands):
    y, vjp = jax.vjp(f, *operands)
    return y, *vjp(dy)


@pytest.mark.parametrize("masked", [False, True])
def test_gradient_against_finite_differences_in_float64(masked):
    with jax.enable_x64(True):
        x, scale, bias, _ = (jnp.asarray(np.asarray(a), jnp.float64) for a in arguments())
        mask = jnp.array(MASKS["spread"], jnp.float64) if masked else None

        def f(x, scale, bias):
            return batch_norm(x, scale, bias, group_size=4, mask=mask)[0]

        check_grads(f, (x, scale, bias), order=1, modes=["rev"], rtol=1e-6, atol=1e-6)


def test_statistics_carry_no_gradient():
    x, scale, bias, _ = arguments()
    gradient = jax.grad(lambda x: batch_norm(x, scale, bias)[1].var.sum())(x)
    assert not np.any(gradient)


def test_groups_are_the_same_as_each_group_alone():
    x, scale, bias, dy = arguments()

    @partial(jax.jit, static_argnums=2)
    def run(x, dy, group_size):
        f = partial(batch_norm, scale=scale, bias=bias, group_size=group_size, relu=True)
        y, vjp = jax.vjp(lambda x: f(x)[0], x)
        return y, vjp(dy)[0]

    together = run(x, dy, 2)
    for g in range(4):
        part = slice(2 * g, 2 * g + 2)
        for got, want in zip(together, run(x[part], dy[part], None), strict=True):
            np.testing.assert_allclose(got[part], want, rtol=1e-4, atol=1e-6)


def test_one_group_is_flax_batch_norm():
    x, scale, bias, dy = arguments()
    params = {"scale": scale, "bias": bias}
    stats = {"mean": jnp.full(5, 0.3), "var": jnp.full(5, 1.7)}
    variables = {"params": params, "batch_stats": stats}
    flax = nn.BatchNorm(use_running_average=False, momentum=0.9)
    ours = BatchNorm(momentum=0.9)

    @partial(jax.jit, static_argnums=0)
    def run(apply):
        (y, updates), vjp = jax.vjp(
            lambda p, x: apply({"params": p, "batch_stats": stats}, x), params, x
        )
        zeros = jax.tree.map(jnp.zeros_like, updates)
        return y, updates["batch_stats"], vjp((dy, zeros))

    got = run(lambda v, x: ours.apply(v, x, train=True, mutable=["batch_stats"]))
    want = run(lambda v, x: flax.apply(v, x, mutable=["batch_stats"]))
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-4), got, want)
    np.testing.assert_allclose(
        ours.apply(variables, x, train=False),
        nn.BatchNorm(use_running_average=True).apply(variables, x),
        rtol=1e-5,
        atol=1e-6,
    )
    fresh = BatchNorm().init(jax.random.key(0), x, train=True)
    expected = flax.init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, fresh, expected)


def test_running_averages_take_the_mean_over_groups():
    x, _, _, _ = arguments()
    model = BatchNorm(group_size=2, momentum=0.75)
    variables = model.init(jax.random.key(0), x, train=False)
    _, updates = model.apply(variables, x, train=True, mutable=["batch_stats"])
    groups = np.asarray(x).reshape(4, -1, 5)
    stats = updates["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.25 * groups.mean(1).mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.75 + 0.25 * groups.var(1).mean(0), rtol=1e-5)


def test_padding_is_outside_the_statistics():
    x, _, _, _ = arguments()
    model = BatchNorm(group_size=4)
    variables = model.init(jax.random.key(0), x, train=False)
    mask = jnp.array([1, 1, 1, 0, 0, 0, 0, 0])

    @jax.jit
    def run(x, mask):
        return model.apply(variables, x, train=True, mask=mask, mutable=["batch_stats"])

    padded, stats = run(x.at[3:].set(1e3), mask)
    alone, expected = BatchNorm().apply(variables, x[:3], train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(padded[:3], alone, rtol=1e-5, atol=1e-5)
    # The second group is padding alone: finite, and not in the running averages.
    assert np.isfinite(padded).all()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), stats, expected)
    _, unchanged = run(x, jnp.zeros(8))
    jax.tree.map(
        np.testing.assert_array_equal, unchanged, {"batch_stats": variables["batch_stats"]}
    )
    gradient = jax.grad(lambda x: (run(x, jnp.zeros(8))[0] ** 2).sum())(jnp.zeros_like(x))
    assert np.isfinite(gradient).all()


def test_all_ones_mask_is_no_mask():
    x, scale, bias, _ = arguments()
    a, sa = batch_norm(x, scale, bias, group_size=4)
    b, sb = batch_norm(x, scale, bias, group_size=4, mask=jnp.ones(8, bool))
    np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    jax.tree.map(lambda s, t: np.testing.assert_allclose(s, t, rtol=1e-6), sa, sb)


def test_fused_relu_is_the_relu_of_the_module():
    x, scale, bias, _ = arguments()
    stats = {"mean": jnp.full(5, 0.3), "var": jnp.full(5, 1.7)}
    variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": stats}
    for train in (False, True):
        run = [
            BatchNorm(relu=relu).apply(variables, x, train=train, mutable=["batch_stats"])[0]
            for relu in (False, True)
        ]
        np.testing.assert_allclose(nn.relu(run[0]), run[1], rtol=1e-6)


def test_bfloat16_has_float32_statistics():
    x, scale, bias, dy = arguments((64, 4, 4, 5), jnp.bfloat16)

    @jax.jit
    def both(x, scale, bias, dy):
        ours = with_gradients(lambda *a: batch_norm(*a, relu=True)[0], dy, x, scale, bias)
        exact = [a.astype(jnp.float32) for a in (dy, x)]
        return ours, with_gradients(lambda *a: plain(*a, relu=True), *exact, scale, bias)

    got, want = both(x, scale, bias, dy)
    assert [a.dtype for a in got] == [jnp.bfloat16, jnp.bfloat16, jnp.float32, jnp.float32]
    tolerances = [(2**-8, 1e-5), (2**-8, 1e-4), (1e-4, 1e-3), (1e-4, 1e-3)]
    for g, w, (rtol, atol) in zip(got, want, tolerances, strict=True):
        np.testing.assert_allclose(g.astype(np.float32), w, rtol=rtol, atol=atol)
    _, statistics = jax.jit(batch_norm)(x, scale, bias)
    assert statistics.mean.dtype == statistics.var.dtype == jnp.float32
    values = np.asarray(x, np.float64).reshape(-1, 5)
    np.testing.assert_allclose(statistics.var[0], values.var(0), rtol=1e-5)


def test_evaluation_folds_to_one_scale_and_shift():
    x, scale, bias, _ = arguments()
    mean, var = jnp.full(5, 0.3), jnp.full(5, 1.7)
    want = (x - mean) / np.sqrt(1.7 + 1e-5) * scale + bias
    got = apply_running(x, scale, bias, mean, var, 1e-5, relu=False)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_a_group_size_that_does_not_fit_says_what_to_do():
    x, scale, bias, _ = arguments()
    with pytest.raises(ValueError, match="multiple of the group size"):
        batch_norm(x, scale, bias, group_size=3)
    with pytest.raises(ValueError, match="batch of 8"):
        batch_norm(x, scale, bias, group_size=16)
    with pytest.raises(ValueError, match="mask must have shape"):
        batch_norm(x, scale, bias, mask=jnp.ones(4))
    # ... but a model may be initialised with one image.
    BatchNorm(group_size=16).init(jax.random.key(0), x[:1], train=True)

"""Masks: exact draw probabilities, degenerate rows, the straight-through gradient."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from branchnets.families.maskconnect import masks


def sequential(weights, fan_in):
    """Set of drawn branches -> probability, by drawing one after another from what is left."""
    found = {}
    for order in itertools.permutations(range(len(weights)), fan_in):
        probability, left = 1.0, 1.0
        for k in order:
            probability *= weights[k] / left
            left -= weights[k]
        key = frozenset(order)
        found[key] = found.get(key, 0.0) + probability
    return found


@pytest.mark.parametrize(
    ("weights", "fan_in"),
    [((0.5, 0.3, 0.2), 2), ((0.1, 0.2, 0.3, 0.4), 1), ((0.05, 0.15, 0.3, 0.5), 3)],
)
def test_draws_have_the_probabilities_of_sequential_draws(weights, fan_in):
    draws = 40_000
    mask = jnp.tile(jnp.asarray(weights), (draws, 1))
    drawn = np.asarray(masks.sample(jax.random.key(0), mask, fan_in)).astype(bool)
    sets, counts = np.unique(drawn, axis=0, return_counts=True)
    exact = sequential(weights, fan_in)
    assert len(sets) == len(exact)
    for row, count in zip(sets, counts, strict=True):
        p = exact[frozenset(np.flatnonzero(row))]
        assert count / draws == pytest.approx(p, abs=4.5 * np.sqrt(p * (1 - p) / draws))


def test_a_row_always_gives_fan_in_distinct_inputs():
    random = np.random.default_rng(0)
    for _ in range(40):
        inputs = int(random.integers(1, 9))
        fan_in = int(random.integers(1, inputs + 1))
        raw = random.uniform(-1, 1.5, (5, inputs)) * (random.uniform(size=(5, inputs)) < 0.4)
        mask = masks.project(jnp.asarray(raw, jnp.float32))
        np.testing.assert_allclose(mask.sum(-1), 1, atol=1e-6)
        for binary in (masks.sample(jax.random.key(1), mask, fan_in), masks.top(mask, fan_in)):
            assert set(np.unique(binary)) <= {0.0, 1.0}
            np.testing.assert_array_equal(binary.sum(-1), fan_in)
        # What was clipped to zero is drawn only where there is nothing else.
        kept = np.minimum((np.asarray(mask) > 0).sum(-1), fan_in)
        drawn = np.asarray(masks.sample(jax.random.key(2), mask, fan_in))
        np.testing.assert_array_equal((drawn * (np.asarray(mask) > 0)).sum(-1), kept)


def test_a_row_of_zeros_becomes_uniform():
    np.testing.assert_allclose(masks.project(jnp.array([[-1.0, 0.0, -3.0, 0.0]])), 0.25)


def test_what_goes_forward_is_exactly_what_was_drawn():
    mask = masks.project(jax.random.uniform(jax.random.key(0), (50, 7)))
    binary = masks.sample(jax.random.key(1), mask, 3)
    assert jnp.array_equal(jax.jit(masks.straight_through)(binary, mask), binary)


@pytest.mark.parametrize("inputs", [None, (2, 2, 2, 2), (1, 2, 3, 4)])
def test_the_gradient_of_every_entry_goes_straight_through(inputs):
    """Of the sum <dl/dx_j, y_k>, of the mean that over the number of inputs."""
    keys = jax.random.split(jax.random.key(0), 3)
    streams = jax.random.normal(keys[0], (2, 3, 3, 4, 5))
    weights = jax.random.normal(keys[1], (2, 3, 3, 4, 5))
    mask = masks.project(jax.random.uniform(keys[2], (4, 4)))
    binary = masks.top(mask, 2)

    def loss(mask):
        mixed = masks.mix(streams, masks.straight_through(binary, mask), inputs)
        return jnp.sum(jnp.sin(mixed) * weights)

    counts = np.ones(4) if inputs is None else np.array(inputs)
    mixed = masks.mix(streams, binary, inputs)
    by_hand = jnp.einsum("bhwkc,jk->bhwjc", streams, binary / counts[:, None])
    np.testing.assert_allclose(mixed, by_hand, rtol=1e-5, atol=1e-5)
    cotangent = jnp.cos(mixed) * weights  # dl/dx_j
    expected = jnp.einsum("bhwjc,bhwkc->jk", cotangent, streams) / counts[:, None]
    np.testing.assert_allclose(jax.grad(loss)(mask), expected, rtol=1e-4, atol=1e-4)


def test_mixing_is_the_sum_over_the_inputs():
    streams = jax.random.normal(jax.random.key(0), (2, 3, 3, 4, 5))
    mask = jnp.array([[1.0, 0, 0, 1], [0, 1, 0, 0], [1, 1, 1, 1]])
    mixed = masks.mix(streams, mask)
    np.testing.assert_allclose(mixed[..., 0, :], streams[..., 0, :] + streams[..., 3, :], rtol=1e-6)
    np.testing.assert_allclose(mixed[..., 1, :], streams[..., 1, :], rtol=1e-6)
    np.testing.assert_allclose(mixed[..., 2, :], streams.sum(3), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("readers", [1, 3, 4])
def test_mixing_and_its_gradients_are_those_of_the_contraction(readers, dtype):
    """The form for CPU, and the one for other platforms, against exact arithmetic."""
    keys = jax.random.split(jax.random.key(0), 3)
    streams = jax.random.normal(keys[0], (2, 3, 5, 4, 6), dtype)
    mask = jax.random.uniform(keys[1], (readers, 4)).astype(dtype).astype(jnp.float32)
    cotangent = jax.random.normal(keys[2], (2, 3, 5, readers, 6), dtype)

    def exact(streams, mask):
        return jnp.einsum("bhwkc,jk->bhwjc", streams, mask, precision="highest")

    @jax.jit
    def both(streams, mask, cotangent):
        mixed, vjp = jax.vjp(masks.mix, streams, mask)
        return mixed, *vjp(cotangent)

    mixed, vjp = jax.vjp(exact, streams.astype(jnp.float32), mask)
    wanted = (mixed, *vjp(cotangent.astype(jnp.float32)))
    found = both(streams, mask, cotangent)
    assert [x.dtype for x in found] == [dtype, dtype, jnp.float32]
    tolerance = 1e-5 if dtype == jnp.float32 else 2**-8  # rounded once, at the end
    for got, want in zip(found, wanted, strict=True):
        scale = float(jnp.abs(want).max())
        np.testing.assert_allclose(got.astype(np.float32), want, rtol=tolerance, atol=1e-5 * scale)


def test_a_mean_in_bfloat16_is_that_of_its_inputs():
    """Thirds are not exact in bfloat16; a stream that is the same everywhere stays itself."""
    streams = jnp.full((1, 1, 1, 3, 2), 1.5, jnp.bfloat16)
    mixed = masks.mix(streams, jnp.ones((3, 3)), (3, 3, 3))
    assert mixed.dtype == jnp.bfloat16 and jnp.array_equal(mixed, streams)


def test_mixing_takes_the_form_of_the_target():
    streams, mask = jnp.ones((2, 3, 3, 4, 5)), jnp.ones((4, 4))
    traced = jax.jit(masks.mix).trace(streams, mask)
    texts = {p: traced.lower(lowering_platforms=(p,)).as_text() for p in ("cpu", "tpu")}
    batched = {p: "batching_dims = [0] x [0]" in text for p, text in texts.items()}
    assert batched == {"cpu": True, "tpu": False}
    assert all(text.count("stablehlo.dot_general") == 1 for text in texts.values())


@pytest.mark.parametrize("seed", range(5))
def test_rows_of_any_kind_draw_their_fan_in_under_jit(seed):
    """Empty rows, rows with fewer entries than K, tiny and huge ones; not normalised either."""
    random = np.random.default_rng(seed)
    sample = jax.jit(masks.sample, static_argnums=2)
    top = jax.jit(masks.top, static_argnums=1)
    for fan_in in (1, 3, 6):
        raw = np.exp(random.uniform(-80, 3, (64, 6))) * (random.uniform(size=(64, 6)) < 0.5)
        raw[0], raw[1] = 0, [1e-38, 0, 0, 0, 0, 0]
        for mask in (raw, np.asarray(masks.project(jnp.asarray(raw, jnp.float32)))):
            mask = jnp.asarray(mask, jnp.float32)
            for draw in (sample(jax.random.key(seed), mask, fan_in), top(mask, fan_in)):
                assert set(np.unique(draw)) <= {0.0, 1.0}
                np.testing.assert_array_equal(draw.sum(-1), fan_in)


def test_updates_of_any_size_leave_rows_to_draw_from():
    """A step too far clips whole rows away; what follows is uniform, not NaN, and goes on."""
    random = np.random.default_rng(0)
    mask = jnp.full((16, 5), 0.2)
    step = jax.jit(lambda mask, change: masks.project(mask - change))
    for size in (0.1, 10.0, 1e30, 0.0, 1e-20):
        mask = step(mask, size * random.standard_normal((16, 5)).astype(np.float32))
        np.testing.assert_allclose(mask.sum(-1), 1, rtol=1e-6)
        assert (np.asarray(mask) >= 0).all()
        drawn = masks.sample(jax.random.key(1), mask, 3)
        np.testing.assert_array_equal(drawn.sum(-1), 3)

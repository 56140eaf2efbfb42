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


def test_the_gradient_of_every_entry_goes_straight_through():
    keys = jax.random.split(jax.random.key(0), 3)
    streams = jax.random.normal(keys[0], (2, 3, 3, 4, 5))
    weights = jax.random.normal(keys[1], (2, 3, 3, 4, 5))
    mask = masks.project(jax.random.uniform(keys[2], (4, 4)))
    binary = masks.top(mask, 2)

    def loss(mask):
        mixed = masks.mix(streams, masks.straight_through(binary, mask))
        return jnp.sum(jnp.sin(mixed) * weights)

    mixed = masks.mix(streams, binary)
    cotangent = jnp.cos(mixed) * weights  # dl/dx_j
    expected = jnp.einsum("bhwjc,bhwkc->jk", cotangent, streams)
    np.testing.assert_allclose(jax.grad(loss)(mask), expected, rtol=1e-4, atol=1e-4)


def test_mixing_is_the_sum_over_the_inputs():
    streams = jax.random.normal(jax.random.key(0), (2, 3, 3, 4, 5))
    mask = jnp.array([[1.0, 0, 0, 1], [0, 1, 0, 0], [1, 1, 1, 1]])
    mixed = masks.mix(streams, mask)
    np.testing.assert_allclose(mixed[..., 0, :], streams[..., 0, :] + streams[..., 3, :], rtol=1e-6)
    np.testing.assert_allclose(mixed[..., 1, :], streams[..., 1, :], rtol=1e-6)
    np.testing.assert_allclose(mixed[..., 2, :], streams.sum(3), rtol=1e-5, atol=1e-5)

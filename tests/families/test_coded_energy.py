"""The Gram form of the energies against the literal one, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import literal
from branchnets.families.coded import energy

B, H, W, N, D, C = 4, 5, 3, 6, 5, 40


@pytest.fixture(scope="module")
def block():
    keys = jax.random.split(jax.random.key(0), 3)
    # Branches of very different strength, as a trained network has them.
    strength = jnp.repeat(10.0 ** -jnp.arange(N), D)
    hidden = jnp.maximum(jax.random.normal(keys[0], (B, H, W, N * D)), 0) * strength
    kernel = jax.random.normal(keys[1], (N * D, C)) * 0.3
    return hidden, kernel


def gram_form(hidden, kernel, norm_branches, remove=None, drop=None, normalize=True):
    raw = energy.gram_energies(hidden, energy.gram(kernel, N)) / C
    if remove is not None:
        raw = raw * remove
    factor = jnp.ones_like(raw)
    if normalize:
        factor = factor * energy.normaliser(raw, norm_branches)
    measured = raw * factor**2
    for other in (remove, drop):
        factor = factor if other is None else factor * other
    return energy.expand_scaled(hidden, factor, kernel[None, None]), measured


def masks(kind):
    key = jax.random.key(7)
    if kind == "plain":
        return {}
    if kind == "unnormalised":
        return {"normalize": False}
    keep = jax.random.bernoulli(key, 0.6, (B, N)).astype(jnp.float32).at[:, 0].set(1)
    return {"remove": keep} if kind == "removed" else {"drop": keep / 0.6}


@pytest.mark.parametrize("kind", ["plain", "removed", "dropped", "unnormalised"])
def test_gram_form_equals_literal_form(block, kind):
    hidden, kernel = block
    given = masks(kind)
    target = jax.random.normal(jax.random.key(3), (B, H, W, C))

    def loss(form, hidden, kernel):
        total, measured = form(hidden, kernel)
        return jnp.sum(total * target) + jnp.sum(jnp.sin(measured)), (total, measured)

    def ours(h, k):
        return gram_form(h, k, N, **given)

    def paper(h, k):
        return literal.aggregate(h, k, N, N, **given)

    grads, values = jax.grad(lambda *a: loss(ours, *a), (0, 1), has_aux=True)(hidden, kernel)
    expected, wanted = jax.grad(lambda *a: loss(paper, *a), (0, 1), has_aux=True)(hidden, kernel)
    total_energy = float(jnp.sum(wanted[1], axis=1).max())
    np.testing.assert_allclose(values[1], wanted[1], atol=1e-5 * total_energy)
    np.testing.assert_allclose(values[0], wanted[0], atol=1e-5 * np.abs(wanted[0]).max())
    for found, right in zip(grads, expected, strict=True):
        np.testing.assert_allclose(found, right, atol=2e-5 * np.abs(right).max())


def test_energies_of_one_pixel_by_hand():
    # b = (1, 2), W = [[1, 0], [1, 1]]: t = b W = (3, 2), E * C = 13.
    hidden = jnp.array([1.0, 2.0]).reshape(1, 1, 1, 2)
    kernel = jnp.array([[1.0, 0.0], [1.0, 1.0]])
    found = energy.gram_energies(hidden, energy.gram(kernel, 1))
    np.testing.assert_allclose(found, [[13.0]], rtol=1e-6)


def test_normalised_energies_add_up_to_the_number_of_branches(block):
    _, measured = gram_form(*block, N)
    np.testing.assert_allclose(jnp.sum(measured, axis=1), N, rtol=1e-5)


def test_a_silent_block_gives_finite_values_and_gradients():
    def loss(hidden, kernel):
        total, measured = gram_form(hidden, kernel, N)
        return jnp.sum(total) + jnp.sum(measured**4)

    grads = jax.grad(loss, (0, 1))(jnp.zeros((B, H, W, N * D)), jnp.ones((N * D, C)))
    assert all(np.isfinite(g).all() for g in grads)


def test_bfloat16_energies_are_those_of_the_rounded_numbers(block):
    hidden, kernel = (x.astype(jnp.bfloat16) for x in block)
    found = energy.gram_energies(hidden, energy.gram(kernel, N)) / C
    wanted = literal.energies(
        literal.branch_outputs(hidden.astype(jnp.float32), kernel.astype(jnp.float32), N)
    )
    np.testing.assert_allclose(found, wanted, atol=1e-5 * float(wanted.sum(1).max()))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_both_forms_of_the_gradients_of_the_energies_agree(block, dtype):
    hidden, kernel = block[0].astype(dtype), block[1]
    cotangent = jax.random.normal(jax.random.key(5), (B, N))
    given = (hidden, energy.gram(kernel, N), cotangent)
    found, wanted = energy._gradients_by_conv(*given), energy._gradients_by_moments(*given)
    # In bfloat16 the cotangent, its product with the branch and the sums are rounded.
    tolerance = 1e-6 if dtype == "float32" else 2**-6
    for ours, other in zip(found, wanted, strict=True):
        assert ours.dtype == other.dtype and ours.shape == other.shape
        ours, other = (array.astype(jnp.float32) for array in (ours, other))
        if ours.ndim == 4:  # branches are of very different strength
            ours, other = (a.reshape(-1, N, D).swapaxes(0, 1) for a in (ours, other))
        scale = jnp.abs(other).max(axis=(1, 2), keepdims=True)
        np.testing.assert_allclose(ours / scale, other / scale, atol=tolerance)

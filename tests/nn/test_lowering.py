"""One bilinear operation in several forms: which is compiled where, and both gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from branchnets.nn.lowering import PLATFORMS, Form, bilinear

X = jax.random.normal(jax.random.key(0), (3, 4))
W = jax.random.normal(jax.random.key(1), (4, 5))


def plain(x, w):
    return x @ w


def slow(x, w):
    """The same as a sum of products, to be told from :func:`plain` in a program's text."""
    return jnp.sum(x[:, :, None] * w, axis=1)


def forms(cpu, other):
    return {p: cpu if p == "cpu" else other for p in PLATFORMS}


def products(function, platform, *operands):
    lowered = jax.jit(function).trace(*operands).lower(lowering_platforms=(platform,))
    return lowered.as_text().count("stablehlo.dot_general")


MADE = {
    "one form": forms(Form(plain, plain), Form(plain, plain)),
    "another for w's gradient": forms(Form(plain, slow), Form(plain, slow)),
    "another on cpu": forms(Form(slow, slow), Form(plain, plain)),
    "mixed": forms(Form(slow, plain), Form(plain, slow)),
}


@pytest.mark.parametrize("name", MADE)
def test_every_choice_is_the_same_function_with_the_same_gradients(name):
    def both(function):
        y, vjp = jax.vjp(function, X, W)
        return y, *vjp(jnp.cos(y))

    for got, want in zip(both(lambda x, w: bilinear(x, w, MADE[name])), both(plain), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_the_form_is_that_of_the_target():
    def run(x, w):
        return bilinear(x, w, MADE["another on cpu"])

    assert [products(run, p, X, W) for p in PLATFORMS] == [0, 1, 1, 1]


def test_the_gradients_take_their_own_forms_and_no_forward_result():
    def backward(x, w, dy):
        return jax.vjp(lambda a, b: bilinear(a, b, MADE["mixed"]), x, w)[1](dy)

    dy = jnp.ones((3, 5))
    # x's gradient and w's, as the forms have it; XLA drops the forward pass that `vjp` traces.
    compiled = jax.jit(backward).lower(X, W, dy).compile().as_text()
    assert compiled.count(" dot(") == 1  # on CPU only w's gradient is a product
    assert products(lambda x, dy: backward(x, W, dy)[0], "tpu", X, dy) >= 1


def test_a_single_form_can_be_differentiated_forward_too():
    y, tangent = jax.jvp(lambda x: bilinear(x, W, MADE["one form"]), (X,), (X,))
    np.testing.assert_allclose(y, tangent, rtol=1e-6)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: bilinear(x, W, MADE["another on cpu"]), (X,), (X,))


def test_only_the_operands_are_kept_for_the_gradient():
    _, vjp = jax.vjp(lambda x, w: bilinear(x, w, MADE["another on cpu"]), X, W)
    kept = sorted(leaf.shape for leaf in jax.tree.leaves(vjp) if leaf.ndim)
    assert kept == [(3, 4), (4, 5)]


def test_works_under_vmap_and_scan():
    stacked = jnp.stack([W, 2 * W])

    def run(w):
        return bilinear(X, w, MADE["another on cpu"])

    y = jax.jit(jax.vmap(run))(stacked)
    np.testing.assert_allclose(y[1], 2 * (X @ W), rtol=1e-5)
    scanned = jax.jit(lambda: jax.lax.scan(lambda c, w: (c, run(w)), 0, stacked)[1])()
    np.testing.assert_allclose(scanned, y, rtol=1e-5, atol=1e-6)

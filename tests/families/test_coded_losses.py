"""Closed-form values and gradients of the coding loss and the early decoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from branchnets.families.coded import losses

WORD = jnp.array([[1, 1, 0, 0]])


def test_coding_loss_by_hand():
    # r = 1/2: r E - w = (1 - 1, 0.5 - 1, 0.5 - 0, 0).
    energies = jnp.array([[2.0, 1.0, 1.0, 0.0]])
    assert losses.coding_loss(energies, WORD)[0] == pytest.approx(2 * 0.5**4 / 4)
    assert losses.coding_loss(energies, WORD, exponent=2)[0] == pytest.approx(2 * 0.5**2 / 4)
    assert losses.coding_loss(energies, WORD, exponent=1)[0] == pytest.approx(2 * 0.5 / 4)
    assert losses.coding_loss(energies, WORD, threshold=0.4)[0] == pytest.approx(2 * 0.1**4 / 4)


def test_coding_loss_vanishes_on_the_code():
    energies = 2.0 * WORD.astype(jnp.float32)
    assert losses.coding_loss(energies, WORD)[0] == 0
    for exponent in (1, 2, 4):
        gradient = jax.grad(lambda e, p=exponent: losses.coding_loss(e, WORD, exponent=p)[0])
        assert np.isfinite(gradient(energies)).all()


def test_coding_loss_gradient_by_hand():
    # d/dE_n = 4 r (rE - w)^3 / N.
    energies = jnp.array([[2.0, 1.0, 1.0, 0.0]])
    found = jax.grad(lambda e: losses.coding_loss(e, WORD)[0])(energies)
    np.testing.assert_allclose(found, [[0, -0.0625, 0.0625, 0]], atol=1e-7)


def test_decoder_finds_the_nearest_codeword_on_any_scale():
    words = jnp.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]])
    energies = jnp.array([[3.0, 2.5, 0.1, 0.2], [0.0, 1.0, 1.2, 0.3]])
    predicted, confidence = losses.decode(energies * 1e-3, words)
    np.testing.assert_array_equal(predicted, [0, 1])
    assert (confidence > 1 / 3).all() and (confidence < 1).all()


def test_decoder_is_the_largest_inner_product_when_weights_are_equal():
    key = jax.random.key(0)
    words = jnp.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [1, 0, 0, 1]])
    energies = jax.random.uniform(key, (100, 4))
    predicted, _ = losses.decode(energies, words)
    np.testing.assert_array_equal(predicted, jnp.argmax(energies @ words.T, axis=1))


def test_decoder_distance_by_hand():
    words = jnp.array([[1, 0], [0, 1]])
    found = losses.decoder_logits(jnp.array([[0.8, 0.2]]), words)
    np.testing.assert_allclose(found, [[-np.hypot(0.2, 0.2), -np.hypot(0.8, 0.8)]], rtol=1e-6)


def test_decoder_survives_silence():
    predicted, confidence = losses.decode(jnp.zeros((1, 4)), WORD)
    assert predicted.shape == (1,) and np.isfinite(confidence).all()

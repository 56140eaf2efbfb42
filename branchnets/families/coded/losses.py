"""The coding loss and the early decoder, as pure functions of energies and codewords."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def coding_loss(
    energies: jax.Array,
    codewords: jax.Array,
    *,
    exponent: float = 4.0,
    threshold: float = 0.0,
) -> jax.Array:
    """L_code of one block for each example (Coded ResNeXt, Eq. 5).

        L_code = 1/N sum_n |r E(t̄_n) - w_n|^p,    r = N_act / N,  p = 4 in the paper.

    Args:
      energies: E(t̄_n), [B, N].
      codewords: w of each example's class, [B, N] of 0 and 1; N_act is their sum.
      exponent: p; 4 in the paper, 2 and 1 in its ablation (4.5).
      threshold: dead zone of the authors' code, max(|rE - w| - threshold, 0)^p.

    Returns:
      [B] float32.  The total loss adds mu times the sum over blocks (Eq. 6).
    """
    codewords = codewords.astype(jnp.float32)
    ratio = jnp.mean(codewords, axis=-1, keepdims=True)
    distance = jnp.abs(ratio * energies.astype(jnp.float32) - codewords)
    if threshold:
        distance = jnp.maximum(distance - threshold, 0.0)
    return jnp.mean(distance**exponent, axis=-1)


def decode(energies: jax.Array, codewords: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The early decoder of one block (Eq. 7): argmin_k ||v - w_k||_2.

    Args:
      energies: [B, N], on any scale; they are rescaled to sum to N_act as the codewords do.
      codewords: w of every class, [K, N].

    Returns:
      (predicted class [B] int32, confidence [B]: softmax over classes of minus the distance).
    """
    logits = decoder_logits(energies, codewords)
    confidence = jnp.max(jax.nn.softmax(logits), axis=-1)
    return jnp.argmax(logits, axis=-1), confidence


def decoder_logits(energies: jax.Array, codewords: jax.Array) -> jax.Array:
    """-||v - w_k||_2 for every class, [B, K]; see :func:`decode`."""
    codewords = codewords.astype(jnp.float32)
    weight = jnp.sum(codewords[0])
    total = jnp.sum(energies, axis=-1, keepdims=True)
    scaled = energies * weight / jnp.maximum(total, 1e-12)
    gap = scaled[:, None, :] - codewords[None]
    return -jnp.sqrt(jnp.sum(jnp.square(gap), axis=-1))

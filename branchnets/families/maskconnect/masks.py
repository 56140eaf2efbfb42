"""Branch masks: which branches of a module a branch of the next one reads (MaskConnect, 2.2).

A real-valued mask m~ [J, C] has one row for each branch that reads and one entry for each branch
that can be read.  It is stored normalised, every row with sum 1; binary masks m in {0, 1} are drawn
from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp

from branchnets.nn.lowering import PLATFORMS, Form, bilinear

#: Under the logarithm of a mask.  An entry that was clipped to zero is drawn only where a row has
#: fewer than K others: Gumbel noise in float32 spans some 20, the logarithm of this is -69.
FLOOR = 1e-30


def normalize(mask: jax.Array) -> jax.Array:
    """Rows that sum to 1.

    Differs: a row of zeros becomes uniform; the paper does not say what a branch reads whose masks
    were all clipped to zero.

    Args:
      mask: [..., J, C], not negative.
    """
    total = jnp.sum(mask, axis=-1, keepdims=True)
    uniform = jnp.full_like(mask, 1.0 / mask.shape[-1])
    return jnp.where(total > 0, mask / jnp.where(total > 0, total, 1.0), uniform)


def project(mask: jax.Array) -> jax.Array:
    """What follows a gradient step: clip to [0, 1], then normalise.

    Algorithm 1 normalises before it draws and clips after the step; stored like this, a mask is
    always ready to be drawn from, and the sequence is the same.
    """
    return normalize(jnp.clip(mask, 0.0, 1.0))


def sample(key: jax.Array, mask: jax.Array, fan_in: int) -> jax.Array:
    """Draws K distinct inputs a row from Mult(m~), one after another without replacement.

    Adding Gumbel noise to the logarithms and keeping the K largest has exactly the probabilities
    of K draws of which each takes what is left in proportion to m~.

    Args:
      key: one draw for all examples.
      mask: [..., J, C], rows with sum 1.
      fan_in: K, 1 to C.

    Returns:
      float32 [..., J, C] of 0 and 1, K ones a row.
    """
    noise = jax.random.gumbel(key, mask.shape, jnp.float32)
    return _largest(jnp.log(jnp.maximum(mask, FLOOR)) + noise, fan_in)


def top(mask: jax.Array, fan_in: int) -> jax.Array:
    """The K largest entries of every row, as 0 and 1; of equal ones, those that come first."""
    return _largest(mask, fan_in)


def _largest(score: jax.Array, count: int) -> jax.Array:
    _, index = jax.lax.top_k(score, count)
    return jnp.sum(jax.nn.one_hot(index, score.shape[-1], dtype=jnp.float32), axis=-2)


def straight_through(binary: jax.Array, mask: jax.Array) -> jax.Array:
    """``binary`` forward; backward, its whole gradient goes to the real-valued mask.

    So the gradient of entry (j, k) is <dl/dx_j, y_k>, of entries that were not drawn too.
    """
    # The bracket is exactly zero, so that what goes forward is exactly 0 and 1.
    return jax.lax.stop_gradient(binary) + (mask - jax.lax.stop_gradient(mask))


def mix(streams: jax.Array, mask: jax.Array, inputs: Sequence[int] | None = None) -> jax.Array:
    """x_j = sum_k m_jk y_k   (Eq. 2), one contraction over the branch axis.

    Args:
      streams: y, [B, H, W, C, channels].
      mask: m, [J, C] float32.
      inputs: [J] number of inputs of every branch that reads, to divide by it; None: the sum.
        Differs: the paper has the sum alone.  The gradient of a mask is then <dl/dx_j, y_k> / K.

    Returns:
      [B, H, W, J, channels] in the type of ``streams``, summed (and divided) in float32.
    """
    # Dividing the sum, not the mask: 0 and 1 are exact in bfloat16, 1/3 is not.
    share = None if inputs is None else tuple(1.0 / count for count in inputs)
    direct = Form(partial(_contract, share=share), partial(_contract_exactly, share=share))
    by_pixel = partial(_contract_by_pixel, share=share)
    forms = {p: Form(by_pixel, by_pixel) if p == "cpu" else direct for p in PLATFORMS}
    return bilinear(streams, mask, forms)


_Share = tuple[float, ...] | None


def _contract(streams: jax.Array, mask: jax.Array, share: _Share) -> jax.Array:
    weights = mask.astype(streams.dtype)
    mixed = jnp.einsum("bhwkc,jk->bhwjc", streams, weights, preferred_element_type=jnp.float32)
    return _divided(mixed, share).astype(streams.dtype)


def _contract_exactly(streams: jax.Array, mask: jax.Array, share: _Share) -> jax.Array:
    """For the gradient of the mask, which is float32: a sum over all pixels."""
    mixed = jnp.einsum("bhwkc,jk->bhwjc", streams.astype(jnp.float32), mask)
    return _divided(mixed, share).astype(streams.dtype)


def _contract_by_pixel(streams: jax.Array, mask: jax.Array, share: _Share) -> jax.Array:
    """A small matrix product a pixel: XLA for CPU would transpose the streams for a large one,
    three times in a training step, each as expensive as the mixing."""
    *pixels, branches, channels = streams.shape
    flat = streams.reshape(-1, branches, channels).astype(jnp.float32)
    mixed = _divided(jnp.matmul(jnp.broadcast_to(mask, (flat.shape[0], *mask.shape)), flat), share)
    return mixed.astype(streams.dtype).reshape(*pixels, len(mask), channels)


def _divided(mixed: jax.Array, share: _Share) -> jax.Array:
    if share is None:
        return mixed
    if len(set(share)) == 1:
        return mixed * share[0]
    return mixed * jnp.asarray(share, mixed.dtype)[:, None]

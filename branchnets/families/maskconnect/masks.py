"""Branch masks: which branches of a module a branch of the next one reads (MaskConnect, 2.2).

A real-valued mask m~ [J, C] has one row for each branch that reads and one entry for each branch
that can be read.  It is stored normalised, every row with sum 1; binary masks m in {0, 1} are drawn
from it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from branchnets.nn.lowering import PLATFORMS, Form, bilinear

#: Under the logarithm of a mask.  An entry that was clipped to zero is drawn only where a row has
#: fewer than K others: Gumbel noise in float32 spans some 20, the logarithm of this is -69.
FLOOR = 1e-30


def normalize(mask: jax.Array) -> jax.Array:
    """Rows that sum to 1; a row of zeros becomes uniform.

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
    return jax.lax.stop_gradient(binary) + mask - jax.lax.stop_gradient(mask)


def mix(streams: jax.Array, mask: jax.Array) -> jax.Array:
    """x_j = sum_k m_jk y_k   (Eq. 2), one contraction over the branch axis.

    Args:
      streams: y, [B, H, W, C, channels].
      mask: m, [J, C] float32.

    Returns:
      [B, H, W, J, channels] in the type of ``streams``, summed in float32.
    """
    return bilinear(streams, mask.astype(streams.dtype), _MIXING)


def _contract(streams: jax.Array, mask: jax.Array) -> jax.Array:
    mixed = jnp.einsum("bhwkc,jk->bhwjc", streams, mask, preferred_element_type=jnp.float32)
    return mixed.astype(streams.dtype)


def _contract_by_pixel(streams: jax.Array, mask: jax.Array) -> jax.Array:
    """A small matrix product a pixel: XLA for CPU would transpose the streams for a large one,
    three times in a training step, each as expensive as the mixing."""
    *pixels, branches, channels = streams.shape
    # In float32 throughout: a mask's gradient is a sum over all pixels.
    flat = streams.reshape(-1, branches, channels).astype(jnp.float32)
    each = jnp.broadcast_to(mask.astype(jnp.float32), (flat.shape[0], *mask.shape))
    mixed = jnp.matmul(each, flat)
    return mixed.astype(streams.dtype).reshape(*pixels, len(mask), channels)


_DIRECT, _BY_PIXEL = Form(_contract, _contract), Form(_contract_by_pixel, _contract_by_pixel)
_MIXING = {p: _BY_PIXEL if p == "cpu" else _DIRECT for p in PLATFORMS}

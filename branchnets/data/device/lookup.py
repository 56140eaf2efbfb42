"""Looking up pixels, in the form that is fast on the platform.

A TPU reads scattered elements one after the other: by its compiler's estimate, the lookups of two
layers of RandAugment on 128 images of 160x160 take 8 s there. Products with ones and zeros, and
sums of what equals, give the same integers many times faster, and need no device to be asked.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

LEVELS = 256


def corners(image: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """The pixels at two rows and two columns of every place.

    Args:
      image: integers 0..255, [H, W, C].
      rows: int [2, H', W'], from 0 to H - 1.
      columns: int [2, H', W'], from 0 to W - 1.

    Returns:
      int32 [2, 2, H', W', C], by row and by column.
    """
    return lax.platform_dependent(
        image, rows, columns, tpu=corners_by_products, default=corners_by_gathering
    )


def corners_by_gathering(image: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """One of the forms of :func:`corners`."""
    return image[rows[:, None], columns[None]].astype(jnp.int32)


def corners_by_products(image: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """The other: columns are picked by a product, of whose result rows are picked by a sum.

    One line of output at a time, or the products of all would take hundreds of times the image.
    """
    height, width, channels = image.shape
    # Integers up to 256 and ones and zeros are exact in bfloat16, and each sum has one term.
    lines = image.transpose(1, 2, 0).reshape(width, channels * height).astype(jnp.bfloat16)

    def line(places: tuple[jax.Array, jax.Array]) -> jax.Array:
        row, column = places  # [2, W'] each
        chosen = (column[..., None] == jnp.arange(width)).astype(jnp.bfloat16)
        picked = jnp.einsum("kxw,wm->kxm", chosen, lines, preferred_element_type=jnp.bfloat16)
        picked = picked.reshape(*column.shape, channels, height)
        wanted = row[..., None] == jnp.arange(height)  # [2, W', H]
        found = jnp.where(wanted[:, None, :, None], picked[None], 0)
        return found.astype(jnp.float32).sum(axis=-1)  # [2, 2, W', C]

    found = lax.map(line, (rows.swapaxes(0, 1), columns.swapaxes(0, 1)))
    return jnp.moveaxis(found, 0, 2).astype(jnp.int32)


def in_table(table: jax.Array, image: jax.Array) -> jax.Array:
    """table[c, image[..., c]].

    Args:
      table: int32 [C, 256].
      image: integers 0..255, [H, W, C].

    Returns:
      int32 [H, W, C].
    """
    return lax.platform_dependent(
        table, image, tpu=in_table_by_comparing, default=in_table_by_gathering
    )


def in_table_by_gathering(table: jax.Array, image: jax.Array) -> jax.Array:
    """One of the forms of :func:`in_table`."""
    return table[jnp.arange(image.shape[-1]), image]


def in_table_by_comparing(table: jax.Array, image: jax.Array) -> jax.Array:
    """The other."""
    return jnp.where(_is_level(image), table, 0).sum(axis=-1)


def histogram(image: jax.Array) -> jax.Array:
    """How often each channel has each level: integers 0..255 [H, W, C] -> int32 [C, 256]."""
    return lax.platform_dependent(
        image, tpu=histogram_by_comparing, default=histogram_by_scattering
    )


def histogram_by_scattering(image: jax.Array) -> jax.Array:
    """One of the forms of :func:`histogram`."""
    channels = image.shape[-1]
    counts = jnp.zeros((channels, LEVELS), jnp.int32)
    return counts.at[jnp.arange(channels), image].add(1)


def histogram_by_comparing(image: jax.Array) -> jax.Array:
    """The other."""
    return _is_level(image).astype(jnp.int32).sum(axis=(0, 1))


def _is_level(image: jax.Array) -> jax.Array:
    """[..., C] -> bool [..., C, 256]."""
    return image[..., None] == jnp.arange(LEVELS)


def materialised(table: jax.Array) -> jax.Array:
    """The table [C, 256] as it is, computed once and not again for every pixel that is looked up.

    A scatter is a boundary of XLA's fusion on CPU (an optimization_barrier is none); a TPU would
    scatter element by element, and needs none.
    """

    def scattered(table: jax.Array) -> jax.Array:
        return jnp.zeros_like(table).at[:, jnp.arange(LEVELS)].set(table)

    return lax.platform_dependent(table, tpu=lax.optimization_barrier, default=scattered)

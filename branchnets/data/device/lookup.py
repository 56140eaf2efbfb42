"""Looking up pixels, in the form that is fast on the platform.

A TPU reads scattered elements one after the other: by its compiler's estimate, the lookups of two
layers of RandAugment on 128 images of 160x160 take 8 s there. Products with ones and zeros, and
sums of what equals, give the same integers many times faster, and need no device to be asked.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

LEVELS = 256
_TILE = 16  # side; by the TPU compiler's estimate 8, 20 and 32 take longer


def corners(image: jax.Array, rows: jax.Array, columns: jax.Array, stretch: float) -> jax.Array:
    """The pixels at two rows and two columns of every place.

    Args:
      image: integers 0..255, [H, W, C].
      rows: int [2, H', W'], from 0 to H - 1.
      columns: int [2, H', W'], from 0 to W - 1.
      stretch: places that are at most d lines and d columns apart in the output have rows, and
        columns, at most stretch * d apart, but for rounding and the two of a place.

    Returns:
      int32 [2, 2, H', W', C], by row and by column.
    """
    return lax.platform_dependent(
        image,
        rows,
        columns,
        tpu=functools.partial(corners_by_products, stretch=stretch),
        default=corners_by_gathering,
    )


def corners_by_gathering(image: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """One of the forms of :func:`corners`."""
    return image[rows[:, None], columns[None]].astype(jnp.int32)


def corners_by_products(
    image: jax.Array, rows: jax.Array, columns: jax.Array, stretch: float
) -> jax.Array:
    """The other, tile by tile: what a tile looks at lies in a small window of the image.

    Products cut out the window and pick its rows for every place, and a sum picks the columns.
    """
    planes = image.transpose(2, 0, 1).astype(jnp.bfloat16)
    sides = [min(side, math.ceil((_TILE - 1) * stretch) + 3) for side in image.shape[:2]]

    def tile(row: jax.Array, column: jax.Array) -> jax.Array:
        (top, in_rows), (left, in_columns) = (
            _window(places, side, size)
            for places, side, size in zip((row, column), sides, image.shape[:2], strict=True)
        )
        window = _chosen("rh,chw->crw", in_rows, planes)
        window = _chosen("vw,crw->crv", in_columns, window)
        picked = _chosen("kpr,crv->ckpv", _is_at(row - top, sides[0]), window)
        wanted = _is_at(column - left, sides[1])
        found = jnp.where(wanted[:, None, None], picked, 0)
        return found.sum(-1, dtype=jnp.float32).transpose(2, 0, 3, 1)  # [2, 2, places, C]

    found = jax.vmap(jax.vmap(tile))(_tiles(rows), _tiles(columns))
    lines, across = found.shape[:2]
    found = found.reshape(lines, across, 2, 2, _TILE, _TILE, -1).transpose(2, 3, 0, 4, 1, 5, 6)
    found = found.reshape(2, 2, lines * _TILE, across * _TILE, -1)
    return found[:, :, : rows.shape[1], : rows.shape[2]].astype(jnp.int32)


def _tiles(places: jax.Array) -> jax.Array:
    """[2, H', W'] -> [tiles down, tiles across, 2, places of a tile]; beyond the edge, the edge."""
    beyond = [(0, -side % _TILE) for side in places.shape[1:]]
    padded = jnp.pad(places, [(0, 0), *beyond], mode="edge")
    lines, across = (side // _TILE for side in padded.shape[1:])
    cut = padded.reshape(2, lines, _TILE, across, _TILE).transpose(1, 3, 0, 2, 4)
    return cut.reshape(lines, across, 2, _TILE * _TILE)


def _window(places: jax.Array, side: int, size: int) -> tuple[jax.Array, jax.Array]:
    """Where the window of `side` begins in `size`, and which of them it is: bool [side, size]."""
    begin = jnp.clip(places.min(), 0, size - side)
    return begin, _is_at(begin + jnp.arange(side), size)


def _is_at(index: jax.Array, size: int) -> jax.Array:
    """[...] -> bool [..., size]."""
    return index[..., None] == jnp.arange(size)


def _chosen(subscripts: str, choice: jax.Array, values: jax.Array) -> jax.Array:
    """A product with ones and zeros of which each sum has one term at most.

    Integers up to 256 and ones and zeros are exact in bfloat16.
    """
    return jnp.einsum(
        subscripts, choice.astype(jnp.bfloat16), values, preferred_element_type=jnp.bfloat16
    )


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
    return _is_at(image, LEVELS)


def materialised(table: jax.Array) -> jax.Array:
    """The table [C, 256] as it is, computed once and not again for every pixel that is looked up.

    A scatter is a boundary of XLA's fusion on CPU (an optimization_barrier is none); a TPU would
    scatter element by element, and needs none.
    """

    def scattered(table: jax.Array) -> jax.Array:
        return jnp.zeros_like(table).at[:, jnp.arange(LEVELS)].set(table)

    return lax.platform_dependent(table, tpu=lax.optimization_barrier, default=scattered)

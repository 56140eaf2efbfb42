"""RandAugment with the fifteen operations of the timm library, on the device.

Cubuk et al., "RandAugment: practical automated data augmentation with a reduced search space",
2020, in the variant that Coded ResNeXt was trained with. Each operation is an affine warp, a
256-entry lookup table per channel, or a blend of the image with a degraded copy of itself. An
operation is therefore a row of small tables; one layer computes a warp, a lookup and a blend of
every image and keeps one of them. That is far less than computing fifteen operations.

Lookups and blends give Pillow's integers exactly. Warps compute Pillow's coordinates in float32
instead of float64, so a pixel may differ by one level.
Differs: timm draws bilinear or bicubic interpolation at random unless told; here it is bilinear.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from branchnets.data.device import lookup
from branchnets.errors import DataError

OPERATIONS = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "Posterize",
    "Solarize",
    "SolarizeAdd",
    "Color",
    "Contrast",
    "Brightness",
    "Sharpness",
    "ShearX",
    "ShearY",
    "TranslateXRel",
    "TranslateYRel",
)
_INDEX = {name: i for i, name in enumerate(OPERATIONS)}
_NOTHING = len(OPERATIONS)  # the row of the tables that leaves an image alone
_WARPS = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")
_BLENDS = ("Color", "Contrast", "Brightness", "Sharpness")
_STRETCH = 1.367  # of warps, at most: a turn by 30 degrees sees cos 30 + sin 30 times as far
_APPLY_PROBABILITY = 0.5
_GREY = (19595, 38470, 7471)  # Pillow's weights of red, green and blue, in 1/65536


class Tables(NamedTuple):
    """What each operation (and, last, none) does at one magnitude; rows in OPERATIONS' order.

    Attributes:
      matrix: float32 [16, 2, 6], for either sign (1 = negative): output pixel centre (x, y) shows
        the input at (a x + b y + c, d x + e y + f), in pixels.
      lut: int32 [16, 256]; Equalize and AutoContrast, which look at the image, have the identity.
      factor: float32 [16, 2], the blend factor as a sum of two numbers of few bits.
    """

    matrix: np.ndarray | jax.Array
    lut: np.ndarray | jax.Array
    factor: np.ndarray | jax.Array


def magnitude_tables(magnitude: float, height: int, width: int) -> Tables:
    """The tables at `magnitude` m in 0..10 for images of height x width pixels.

    Rotate 30 m/10 degrees, shear 0.3 m/10, translate 0.45 m/10 of the side, Posterize keeps
    int(4 m/10) bits, Solarize inverts from int(256 m/10) up, SolarizeAdd adds int(110 m/10) to
    pixels below 128, Color, Contrast, Brightness and Sharpness blend with 1.8 m/10 + 0.1.
    """
    m = magnitude / 10
    matrix = np.tile(np.array([1, 0, 0, 0, 1, 0], np.float64), (_NOTHING + 1, 2, 1))
    for negative, sign in enumerate((1, -1)):
        matrix[_INDEX["Rotate"], negative] = _rotation(sign * 30 * m, height, width)
        matrix[_INDEX["ShearX"], negative, 1] = sign * 0.3 * m
        matrix[_INDEX["ShearY"], negative, 3] = sign * 0.3 * m
        matrix[_INDEX["TranslateXRel"], negative, 2] = sign * 0.45 * m * width
        matrix[_INDEX["TranslateYRel"], negative, 5] = sign * 0.45 * m * height

    pixel = np.arange(256)
    lut = np.tile(pixel, (_NOTHING + 1, 1))
    lut[_INDEX["Invert"]] = 255 - pixel
    lut[_INDEX["Posterize"]] = pixel & ~(2 ** (8 - int(4 * m)) - 1)
    lut[_INDEX["Solarize"]] = np.where(pixel < int(256 * m), pixel, 255 - pixel)
    added = np.minimum(pixel + int(110 * m), 255)
    lut[_INDEX["SolarizeAdd"]] = np.where(pixel < 128, added, pixel)

    factor = np.ones(_NOTHING + 1, np.float32)
    for name in _BLENDS:
        factor[_INDEX[name]] = 1.8 * m + 0.1
    high = np.floor(factor * 2**11) / np.float32(2**11)
    return Tables(
        matrix.astype(np.float32),
        lut.astype(np.int32),
        np.stack([high, factor - high], axis=-1).astype(np.float32),
    )


def _rotation(degrees: float, height: int, width: int) -> list[float]:
    """Counter-clockwise about the centre, as the map from output to input coordinates."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = width / 2, height / 2
    return [cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y]


def rand_augment(
    key: jax.Array,
    images: jax.Array,
    layers: int,
    magnitude: float,
    mean: Sequence[float],
) -> jax.Array:
    """Apply `layers` randomly drawn operations to each image.

    Each layer draws one of the 15 operations uniformly (with replacement) and a sign where the
    operation has one, and applies it with probability 1/2.

    Args:
      key: random key.
      images: integer pixels 0..255, [B, H, W, C] with C 1 or 3.
      layers: n.
      magnitude: m in 0..10, the same for every draw.
      mean: the mean colour in 0..1, which fills what a warp uncovers.

    Returns:
      [B, H, W, C] of the same dtype.

    Raises:
      ValueError: C is neither 1 nor 3.

    Example:
      >>> images = jnp.zeros((2, 32, 32, 3), jnp.uint8)
      >>> rand_augment(jax.random.key(0), images, 2, 10, (0.5, 0.5, 0.5)).shape
      (2, 32, 32, 3)
    """
    shape = (layers, images.shape[0])
    op_key, apply_key, sign_key = jax.random.split(key, 3)
    ops = jax.random.randint(op_key, shape, 0, len(OPERATIONS))
    applied = jax.random.bernoulli(apply_key, _APPLY_PROBABILITY, shape)
    ops = jnp.where(applied, ops, _NOTHING)
    negative = jax.random.bernoulli(sign_key, 0.5, shape).astype(jnp.int32)
    tables = magnitude_tables(magnitude, *images.shape[1:3])
    return _apply_layers(images, ops, negative, tables, _fill_colour(mean))


def apply_op(
    images: jax.Array,
    op: str | int,
    magnitude: float,
    sign: int = 1,
    mean: Sequence[float] | None = None,
) -> jax.Array:
    """Apply one operation, by name or by its index in OPERATIONS, to a whole batch.

    Args:
      images: integer pixels 0..255, [B, H, W, C] with C 1 or 3.
      op: which.
      magnitude: m in 0..10.
      sign: 1 or -1, for the operations that have one.
      mean: the colour that fills what a warp uncovers, in 0..1; black if None.

    Returns:
      [B, H, W, C] of the same dtype.
    """
    index = _INDEX[op] if isinstance(op, str) else int(op)
    ops = jnp.full((1, images.shape[0]), index)
    negative = jnp.full((1, images.shape[0]), int(sign < 0))
    fill = _fill_colour(mean if mean is not None else (0.0,) * images.shape[-1])
    tables = magnitude_tables(magnitude, *images.shape[1:3])
    return jax.jit(_apply_layers)(images, ops, negative, tables, fill)


def _fill_colour(mean: Sequence[float]) -> np.ndarray:
    return np.array([min(255, round(255 * value)) for value in mean], np.int32)


def _apply_layers(
    images: jax.Array, ops: jax.Array, negative: jax.Array, tables: Tables, fill: np.ndarray
) -> jax.Array:
    """ops and negative are int [layers, B]."""
    if images.shape[-1] not in (1, 3):
        raise DataError(f"RandAugment needs grey or RGB images, got {images.shape[-1]} channels")
    tables = Tables(*map(jnp.asarray, tables))
    one = functools.partial(_apply_one, tables=tables, fill=jnp.asarray(fill))

    def layer(images: jax.Array, drawn: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        return jax.vmap(one)(images, *drawn), None

    return jax.lax.scan(layer, images.astype(jnp.int32), (ops, negative))[0].astype(images.dtype)


def _apply_one(
    image: jax.Array, op: jax.Array, negative: jax.Array, *, tables: Any, fill: jax.Array
) -> jax.Array:
    """One operation on one image, int32 [H, W, C].

    All three kinds are computed from the image and one is kept: chained (two being the identity),
    XLA would fuse them and compute the first again for every pixel that the next one looks at.
    """
    warped = _warp(image, tables.matrix[op, negative], fill)
    looked_up = lookup.in_table(_lookup_table(image, op, tables.lut[op]), image)
    blended = _blend(_degraded(image, op), image, tables.factor[op])
    return jnp.where(_is_in(op, _WARPS), warped, jnp.where(_is_in(op, _BLENDS), blended, looked_up))


def _is_in(op: jax.Array, names: Sequence[str]) -> jax.Array:
    return functools.reduce(jnp.logical_or, (op == _INDEX[name] for name in names))


def _warp(image: jax.Array, matrix: jax.Array, fill: jax.Array) -> jax.Array:
    """Bilinear affine warp; what lies outside the input gets the colour `fill` int32 [C]."""
    height, width, _ = image.shape
    x, y = jnp.arange(width) + 0.5, (jnp.arange(height) + 0.5)[:, None]
    from_x = matrix[0] * x + matrix[1] * y + matrix[2]
    from_y = matrix[3] * x + matrix[4] * y + matrix[5]
    inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
    left, top = jnp.floor(from_x - 0.5), jnp.floor(from_y - 0.5)
    right_share, lower_share = from_x - 0.5 - left, from_y - 0.5 - top
    column, row = left.astype(jnp.int32), top.astype(jnp.int32)
    columns = jnp.stack([jnp.clip(column + i, 0, width - 1) for i in range(2)])
    rows = jnp.stack([jnp.clip(row + i, 0, height - 1) for i in range(2)])

    def between(a: jax.Array, b: jax.Array, share: jax.Array) -> jax.Array:
        return a + (b - a) * share[..., None]  # exact where a = b

    found = lookup.corners(image, rows, columns, _STRETCH)
    upper, lower = (between(left, right, right_share) for left, right in found)
    value = jnp.floor(between(upper, lower, lower_share)).astype(jnp.int32)
    return jnp.where(inside[..., None], value, fill)


def _lookup_table(image: jax.Array, op: jax.Array, fixed: jax.Array) -> jax.Array:
    """The table int32 [C, 256] of the operation: `fixed` int32 [256] or one made for the image."""
    low, high = image.min((0, 1)), image.max((0, 1))
    table = jnp.where(op == _INDEX["AutoContrast"], _autocontrast(low, high), fixed)
    table = jnp.where(op == _INDEX["Equalize"], _equalize(image, high), table)
    return lookup.materialised(table)


def _autocontrast(low: jax.Array, high: jax.Array) -> jax.Array:
    """Stretch low..high (int32 [C]) to 0..255; the identity where they coincide."""
    pixel = jnp.arange(256)
    above = pixel - low[:, None]
    span = (high - low)[:, None]
    stretched = above * 255 // jnp.maximum(span, 1)
    rows, packed = map(jnp.asarray, _float_slips())
    bits = packed[rows[low, high]]  # [C, 32]
    slips = (jnp.repeat(bits, 8, axis=1) >> (pixel & 7)) & 1
    return jnp.where(span > 0, jnp.clip(stretched - slips, 0, 255), pixel)


@functools.cache
def _float_slips() -> tuple[np.ndarray, np.ndarray]:
    """Where Pillow's float64 autocontrast truncates to one less than integer arithmetic gives.

    It computes int(x · s - low · s) with s = 255 / (high - low). Where the exact value is whole
    (at x = high, for one: a fifth of all pairs), rounding may put it just below. No arithmetic on
    the device reproduces that, so the places are listed.

    Returns:
      rows: int16 [256, 256], for (low, high) the row of the list (row 0 = no slip).
      packed: uint8 [rows, 32], bit x = 1 where pixel x slips.
    """
    low, high = (index.ravel() for index in np.triu_indices(256, 1))
    scale = 255.0 / (high - low)
    rows = np.zeros((256, 256), np.int16)
    slips = np.zeros((len(low), 256), bool)
    for x in range(256):
        inside = (low <= x) & (x <= high)
        theirs = np.trunc(x * scale - low * scale).astype(np.int64)
        slips[:, x] = inside & (theirs < (x - low) * 255 // (high - low))
    found = np.flatnonzero(slips.any(1))
    rows[low[found], high[found]] = 1 + np.arange(len(found))
    packed = np.packbits(slips[found], axis=1, bitorder="little")
    return rows, np.concatenate([np.zeros((1, 32), np.uint8), packed])


def _equalize(image: jax.Array, high: jax.Array) -> jax.Array:
    """Flatten each channel's histogram, by Pillow's rule; `high` int32 [C] is its maximum."""
    height, width, channels = image.shape
    channel = jnp.arange(channels)
    histogram = lookup.histogram(image)
    step = (height * width - histogram[channel, high])[:, None] // 255
    below = jnp.cumsum(histogram, axis=1) - histogram
    table = jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255)
    return jnp.where(step > 0, table, jnp.arange(256))


def _degraded(image: jax.Array, op: jax.Array) -> jax.Array:
    """What the operation blends with: grey, its mean, a smoothed copy, or black."""
    grey = image
    if image.shape[-1] == 3:
        grey = ((image * jnp.asarray(_GREY)).sum(-1, keepdims=True) + 2**15) >> 16
    count = grey.size
    mean = (2 * grey.sum() + count) // (2 * count)  # rounded half up
    degraded = jnp.where(op == _INDEX["Contrast"], mean, 0)
    degraded = jnp.where(op == _INDEX["Color"], grey, degraded)
    return jnp.where(op == _INDEX["Sharpness"], _smooth(image), degraded)


def _smooth(image: jax.Array) -> jax.Array:
    """3x3 average with weight 5 in the middle; the outermost pixels stay as they are."""
    height, width, _ = image.shape
    if height < 3 or width < 3:
        return image
    rows = image[:-2] + image[1:-1] + image[2:]
    total = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * image[1:-1, 1:-1]
    inner = jnp.pad((2 * total + 13) // 26, ((1, 1), (1, 1), (0, 0)))  # total / 13, rounded
    row, column = jnp.arange(height)[:, None], jnp.arange(width)
    is_inner = (row > 0) & (row < height - 1) & (column > 0) & (column < width - 1)
    return jnp.where(is_inner[..., None], inner, image)


def _blend(degraded: jax.Array, image: jax.Array, factor: jax.Array) -> jax.Array:
    """degraded + factor · (image - degraded), truncated and clipped.

    Pillow rounds the product to float32 before it adds. A compiler may fuse the two, which rounds
    once and lands on the other side of an integer. `factor` comes in two parts, each with so few
    bits that its product is exact, so that fusing changes nothing.
    """
    degraded, difference = degraded.astype(jnp.float32), (image - degraded).astype(jnp.float32)
    product = factor[0] * difference + factor[1] * difference
    return jnp.clip(jnp.floor(degraded + product), 0, 255).astype(jnp.int32)

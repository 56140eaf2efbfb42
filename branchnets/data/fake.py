"""A made-up dataset of any size, for smoke tests: a network that learns reduces its loss on it."""

from __future__ import annotations

from typing import Any

import numpy as np

from branchnets.data.base import Dataset, DataSpec, Split, field
from branchnets.errors import DataError

_GRID = 4  # a class is a coarse random pattern of 4x4 blocks
_NOISE = 32  # and a pixel departs from it by at most this much


def spec(cfg: Any = None) -> DataSpec:
    """`num_classes` (10) classes of `image_size` (32) pixels square and `channels` (3)."""
    size, channels = int(field(cfg, "image_size", 32)), int(field(cfg, "channels", 3))
    names = tuple(f"class_{k}" for k in range(int(field(cfg, "num_classes", 10))))
    return DataSpec((size, size, channels), len(names), names)


def read(cfg: Any = None) -> Dataset:
    """`fake_size` (512) training images and a quarter as many test images.

    Image i has label i mod K and shows its class's pattern under uniform noise. The same
    arguments always give the same pixels.
    """
    shape = spec(cfg)
    size = int(field(cfg, "fake_size", 512))
    if size < 1 or shape.num_classes < 1:
        raise DataError("data.fake_size and data.num_classes must be at least 1")
    patterns = np.random.RandomState(0).randint(
        64, 192, (shape.num_classes, _GRID, _GRID, shape.image_shape[-1])
    )
    splits = {
        "train": _draw(patterns, shape.image_shape, size, seed=1),
        "test": _draw(patterns, shape.image_shape, max(size // 4, 1), seed=2),
    }
    half = (0.5,) * shape.image_shape[-1]
    quarter = (0.25,) * shape.image_shape[-1]
    return Dataset("fake", shape.class_names, splits, half, quarter)


def _draw(patterns: np.ndarray, image_shape: tuple[int, int, int], size: int, seed: int) -> Split:
    height, width, _ = image_shape
    labels = np.arange(size) % len(patterns)
    rows, columns = np.arange(height) * _GRID // height, np.arange(width) * _GRID // width
    clean = patterns[labels][:, rows][:, :, columns]
    noise = np.random.RandomState(seed).randint(-_NOISE, _NOISE + 1, clean.shape)
    return Split((clean + noise).astype(np.uint8), labels.astype(np.int32))

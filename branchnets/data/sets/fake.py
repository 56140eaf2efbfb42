"""A made-up dataset of any size, for smoke tests: a network that learns reduces its loss on it.

Held in memory, or streamed (`data.stream=True`): then image files of many sizes, made when they are
asked for, half of them JPEG and half PNG.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from branchnets.data.base import Dataset, DataSpec, Split, field
from branchnets.data.images import MODES
from branchnets.data.stored.held import check_fits
from branchnets.data.stored.records import Encoded, StreamedSplit, digest
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
    patterns = _patterns(shape.num_classes, shape.image_shape[-1])
    counts = {"train": size, "test": max(size // 4, 1)}
    splits: Mapping[str, Split | StreamedSplit]
    if field(cfg, "stream", False):
        splits = {
            name: StreamedSplit(
                FakeRecords(count, shape.num_classes, shape.image_shape, seed), shape.image_shape
            )
            for seed, (name, count) in enumerate(counts.items(), 1)
        }
    else:
        check_fits(sum(counts.values()), shape.image_shape, "fake")
        splits = {
            name: _draw(patterns, shape.image_shape, count, seed)
            for seed, (name, count) in enumerate(counts.items(), 1)
        }
    half = (0.5,) * shape.image_shape[-1]
    quarter = (0.25,) * shape.image_shape[-1]
    return Dataset("fake", shape.class_names, splits, half, quarter)


class FakeRecords:
    """Image files that are made when they are asked for; each is a function of (seed, i) alone.

    Example i has label i mod K and its class's pattern under noise; its sides are one to two times
    those of `image_shape`, drawn one by one. Even examples are JPEG, odd ones PNG (all are, where
    there are more than three channels).

    Args:
      count: n.
      num_classes: K.
      image_shape: (H, W, C) of the smallest image.
      seed: of sizes and noise.
    """

    def __init__(
        self, count: int, num_classes: int, image_shape: tuple[int, int, int], seed: int = 0
    ) -> None:
        if image_shape[-1] not in MODES:
            raise DataError(f"data.channels={image_shape[-1]}: image files have 1, 3 or 4")
        self._count, self._classes, self._shape = count, num_classes, image_shape
        self._seed = seed

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: int) -> Encoded:
        if not 0 <= i < self._count:
            raise IndexError(i)
        random = np.random.RandomState([self._seed, i])
        height, width, channels = self._shape
        sides = (random.randint(height, 2 * height + 1), random.randint(width, 2 * width + 1))
        label = i % self._classes
        pattern = _patterns(self._classes, channels)[label : label + 1]
        pixels = _noisy(pattern, (*sides, channels), random)[0]
        image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels, MODES[channels])
        form = "PNG" if i % 2 or channels > 3 else "JPEG"
        out = io.BytesIO()
        image.save(out, form)
        return Encoded(out.getvalue(), label, f"made-up image {i} of seed {self._seed}")

    def labels(self) -> np.ndarray:
        """int32 [n], known without making an image."""
        return (np.arange(self._count) % self._classes).astype(np.int32)

    @property
    def what(self) -> str:
        return f"fake {self._count} {self._classes} {self._shape} {self._seed}"

    def files(self) -> list[Path]:
        return []

    def identity(self) -> str:
        return f"made-up {digest(self.what.encode())}"


@functools.lru_cache(maxsize=4)
def _patterns(num_classes: int, channels: int) -> np.ndarray:
    """int [K, 4, 4, C]."""
    return np.random.RandomState(0).randint(64, 192, (num_classes, _GRID, _GRID, channels))


def _draw(patterns: np.ndarray, image_shape: tuple[int, int, int], size: int, seed: int) -> Split:
    labels = np.arange(size) % len(patterns)
    pixels = _noisy(patterns[labels], image_shape, np.random.RandomState(seed))
    return Split(pixels, labels.astype(np.int32))


def _noisy(
    patterns: np.ndarray, image_shape: tuple[int, int, int], random: np.random.RandomState
) -> np.ndarray:
    """Patterns [n, 4, 4, C] enlarged to uint8 [n, H, W, C], and noise."""
    height, width, _ = image_shape
    rows, columns = np.arange(height) * _GRID // height, np.arange(width) * _GRID // width
    clean = patterns[:, rows][:, :, columns]
    return (clean + random.randint(-_NOISE, _NOISE + 1, clean.shape)).astype(np.uint8)

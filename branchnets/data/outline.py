"""A data set as far as a compiled step depends on it: shapes and numbers, without its files.

So that a step can be compiled, and its cost told, on a machine that has no data.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from branchnets.data.base import Dataset, Mean, Split, as_mean, field
from branchnets.data.prepare import divided_sizes, refuse_stored, reshaped
from branchnets.data.registry import load, source, streams
from branchnets.data.statistics import usual
from branchnets.data.stored.records import Encoded, StreamedSplit
from branchnets.errors import DataError


def outline(cfg: Any) -> Dataset:
    """What :func:`branchnets.data.registry.load` would give, with all pixels zero.

    Of published sets no file is read; the others (what is computed, and what only its files know)
    are loaded. Splits have the numbers of examples and the shapes that they would have; mean and
    standard deviation are the usual ones, for their values change no shape.

    Args:
      cfg: as for `load`.

    Raises:
      DataError: as `load`, of what the config says.
    """
    found = source(field(cfg, "name"))
    if not found.examples:
        return load(cfg)
    given = found.spec(cfg)
    counts = divided_sizes(found.examples, cfg, cfg.name)
    height, width, channels = reshaped(given, cfg, cropped=False).image_shape
    mean: Mean
    mean, std = usual(channels)
    splits: dict[str, Any]
    if streams(cfg):
        refuse_stored(cfg.name, cfg)
        shape = (height, width, channels)
        splits = {name: StreamedSplit(Counted(count), shape) for name, count in counts.items()}
        return Dataset(cfg.name, given.class_names, splits, mean, std)
    if (size := field(cfg, "pad_to")) is not None:
        height = width = int(size)
    shape = (height, width, channels)
    splits = {name: _zeros(count, shape) for name, count in counts.items()}
    if field(cfg, "per_pixel_mean", False):
        mean = as_mean(np.zeros(shape))
    crop = field(cfg, "crop_size")
    return Dataset(cfg.name, given.class_names, splits, mean, std, crop)


def _zeros(count: int, shape: tuple[int, int, int]) -> Split:
    """So many images, which take the memory of one number."""
    return Split(np.broadcast_to(np.uint8(0), (count, *shape)), np.zeros(count, np.int32))


class Counted:
    """Records of which the number is known, and nothing else."""

    what = "an outline"

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: int) -> Encoded:
        raise DataError(f"example {i} of an outline cannot be read: it has none")

    def labels(self) -> np.ndarray:
        """int32 [n], all 0."""
        return np.zeros(self._count, np.int32)

    def files(self) -> list[Any]:
        return []

    def identity(self) -> str:
        return f"outline {self._count}"

"""Splits that are too large to hold as pixels: examples as they are stored, read when needed.

Everything here is on the host and imports no JAX: worker processes open it anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Encoded:
    """One example as it is stored.

    Attributes:
      data: the bytes of an image file (JPEG, PNG ...).
      label: class index as stored; not checked.
      name: what messages call it: a path, or a record file and a number.
    """

    data: bytes
    label: int
    name: str


class Records(Protocol):
    """The stored examples of a split by number; picklable, and safe to use from several threads."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Encoded: ...

    def labels(self) -> np.ndarray:
        """int32 [n]; may have to read every record, and is then kept in the cache directory."""
        ...


@dataclass(frozen=True)
class StreamedSplit:
    """A split whose images are decoded when they are needed.

    Attributes:
      records: what is stored.
      image_shape: (H, W, C) of what the network is given.
      indices: int64 [n], the examples of the split in `records`; None: all of them, in order.
    """

    records: Records
    image_shape: tuple[int, int, int]
    indices: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.records if self.indices is None else self.indices)

    def __getitem__(self, i: int) -> Encoded:
        return self.records[int(i if self.indices is None else self.indices[i])]

    @property
    def labels(self) -> np.ndarray:
        """int32 [n], as stored."""
        labels = self.records.labels()
        return labels if self.indices is None else labels[self.indices]

    def take(self, indices: np.ndarray) -> StreamedSplit:
        """The examples at `indices` (int [m]), in that order."""
        chosen = np.asarray(indices, np.int64)
        return replace(self, indices=chosen if self.indices is None else self.indices[chosen])

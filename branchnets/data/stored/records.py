"""Splits that are too large to hold as pixels: examples as they are stored, read when needed.

Everything here is on the host and starts no device: worker processes open it anew.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from branchnets.errors import DataError, ExampleError
from branchnets.storage import AnyPath, RemotePath, as_path, at_once

_NO_SUCH_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)


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

    def __getitem__(self, i: int) -> Encoded:
        """Example `i`.

        Raises:
          ExampleError: it is missing or damaged; the message names it. Every other exception is
            taken for the machine's or the network's: tried again, and then the end.
        """
        ...

    def labels(self) -> np.ndarray:
        """int32 [n]; may have to read every record, and is then kept in the cache directory."""
        ...

    @property
    def what(self) -> str:
        """Tells apart several records that are read from the same files."""
        ...

    def files(self) -> Sequence[AnyPath]:
        """What the records are read from; one that has changed makes cached arrays anew."""
        ...

    def identity(self) -> str:
        """Which examples in which order, wherever they lie: the form, a space and a digest.

        Found without reading a record.
        """
        ...


def digest(*parts: bytes) -> str:
    """Sixteen hexadecimal digits that tell contents apart."""
    found = hashlib.sha256()
    for part in parts:
        found.update(b"%d:" % len(part))
        found.update(part)
    return found.hexdigest()[:16]


class FileRecords:
    """Image files as records. Of each name only the bytes are held: millions of files are few MB.

    Args:
      root: where the files are.
      names: n paths relative to it (or absolute ones), with forward slashes.
      labels: integers [n].
    """

    def __init__(
        self, root: str | os.PathLike[str] | RemotePath, names: Iterable[str], labels: np.ndarray
    ) -> None:
        self.root = as_path(root)
        encoded = [os.fsencode(name) for name in names]
        self._joined = b"".join(encoded)
        self._ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        self._labels = np.asarray(labels).astype(np.int32).reshape(-1)
        if len(self._labels) != len(self._ends):
            raise ValueError(f"{len(self._ends)} names but {len(self._labels)} labels")

    def __len__(self) -> int:
        return len(self._ends)

    def path(self, i: int) -> AnyPath:
        """Of example `i`, from 0 to n-1."""
        if not 0 <= i < len(self):
            raise IndexError(i)
        start = int(self._ends[i - 1]) if i else 0
        return self.root / os.fsdecode(self._joined[start : int(self._ends[i])])

    def __getitem__(self, i: int) -> Encoded:
        path = self.path(i)
        try:
            return Encoded(path.read_bytes(), int(self._labels[i]), str(path))
        except OSError as error:
            kind = ExampleError if error.errno in _NO_SUCH_FILE else DataError
            raise kind(f"image {path} cannot be read: {error.strerror}") from error

    def labels(self) -> np.ndarray:
        """int32 [n], known without reading a file."""
        return self._labels

    @property
    def what(self) -> str:
        return "files"

    def files(self) -> list[AnyPath]:
        paths = [self.path(i) for i in range(len(self))]
        if isinstance(self.root, RemotePath):
            return _with_versions(self.root, [p for p in paths if isinstance(p, RemotePath)])
        return paths

    def identity(self) -> str:
        parts = (self._joined, self._ends.tobytes(), self._labels.tobytes())
        return f"files {digest(*parts)}"


def _with_versions(root: RemotePath, paths: list[RemotePath]) -> list[AnyPath]:
    """The same paths with their versions: of those in folders of the root, as listings tell."""
    start = len(str(root)) + 1
    tops = {str(p)[start:].partition("/")[0] for p in paths if str(p).startswith(f"{root}/")}
    inner = [p for p in root.iterdir() if p.name in tops]
    listed = {str(path): path for path in inner if not path.is_dir()}
    folders = [path for path in inner if path.is_dir()]
    for walked in at_once(RemotePath.walk, folders):
        listed |= {str(path): path for path in walked.values()}

    def asked(path: RemotePath) -> RemotePath:
        try:
            return path.asked()
        except FileNotFoundError:
            return path  # for whoever opens it

    others = [path for path in paths if str(path) not in listed]
    listed |= {str(path): path for path in at_once(asked, others)}
    return [listed[str(path)] for path in paths]


class ChosenRecords:
    """Some examples of other records, with labels of their own.

    Args:
      records: the others.
      indices: int [n], which of them.
      labels: int [n].
    """

    def __init__(self, records: Records, indices: np.ndarray, labels: np.ndarray) -> None:
        self._records = records
        self._indices = np.asarray(indices, np.int64)
        self._labels = np.asarray(labels).astype(np.int32)
        if self._labels.shape != self._indices.shape:
            raise ValueError(f"{self._indices.shape} examples but {self._labels.shape} labels")

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, i: int) -> Encoded:
        return replace(self._records[int(self._indices[i])], label=int(self._labels[i]))

    def labels(self) -> np.ndarray:
        """int32 [n], known without reading a record."""
        return self._labels

    @property
    def what(self) -> str:
        chosen = hashlib.sha256(self._indices.tobytes() + self._labels.tobytes()).hexdigest()
        return f"{self._records.what} {chosen}"

    def files(self) -> Sequence[AnyPath]:
        return self._records.files()

    def identity(self) -> str:
        form, own = self._records.identity().split(" ")
        return f"{form} {digest(own.encode(), self._indices.tobytes(), self._labels.tobytes())}"


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

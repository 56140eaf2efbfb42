"""Files by path or by URL (`gs://`, and whatever else fsspec knows), read in ranges."""

from __future__ import annotations

import os

from branchnets.storage import AnyPath, RemotePath


def size_of(path: AnyPath) -> int:
    """Bytes of a file."""
    return path.size() if isinstance(path, RemotePath) else path.stat().st_size


def fingerprint(path: AnyPath) -> str:
    """Which file it is, and in which version."""
    if isinstance(path, RemotePath):
        return f"{path} {path.version()}"
    stat = path.stat()
    return f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}"


def read_range(path: AnyPath, start: int, length: int) -> bytes:
    """The bytes of a range of a file; fewer where it ends. Safe to use from several threads."""
    if isinstance(path, RemotePath):
        return path.read(start, length)
    # Opened anew, which takes microseconds: a data set has more files than a process may open.
    file = os.open(path, os.O_RDONLY)
    try:
        return os.pread(file, length, start)
    finally:
        os.close(file)


class ReadAhead:
    """Many small ranges of a file, in rising order, with few reads.

    Args:
      path: the file.
      ahead: bytes that a read fetches where less is asked for; may be changed at any time.

    Attributes:
      reads: how often something was fetched.
    """

    def __init__(self, path: AnyPath, ahead: int) -> None:
        self.ahead, self.reads = ahead, 0
        self._path, self._size = path, size_of(path)
        self._start, self._buffer = 0, b""

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._size

    def __call__(self, start: int, length: int) -> bytes:
        """The bytes of a range; fewer where the file ends."""
        length = max(min(length, self._size - start), 0)
        offset = start - self._start
        if offset < 0 or offset + length > len(self._buffer):
            count = min(max(length, self.ahead), self._size - start)
            self._start, self._buffer = start, read_range(self._path, start, count)
            self.reads, offset = self.reads + 1, 0
        return self._buffer[offset : offset + length]

"""Files by path or by URL (`gs://`, and whatever else fsspec knows), read in ranges.

A URL needs fsspec and what its scheme needs: `pip install gcsfs` for `gs://`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from branchnets.errors import DataError

Result = TypeVar("Result")


class RemotePath:
    """A URL with the few methods of a path that are needed here; each asks the server.

    Args:
      url: scheme and path.
    """

    def __init__(self, url: str) -> None:
        self._scheme, separator, self._rest = url.partition("://")
        if not separator:
            raise ValueError(f"{url!r} is no URL")

    def __str__(self) -> str:
        return f"{self._scheme}://{self._rest}"

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __truediv__(self, part: str) -> RemotePath:
        return RemotePath(f"{self._scheme}://{self._rest.rstrip('/')}/{part}")

    @property
    def name(self) -> str:
        """The last part."""
        return PurePosixPath(self._rest).name

    def exists(self) -> bool:
        """Whether there is something of that name."""
        return bool(self._ask(lambda fs, path: fs.exists(path)))

    def read_text(self) -> str:
        """The whole file."""
        return bytes(self._ask(lambda fs, path: fs.cat_file(path))).decode("utf-8")

    def iterdir(self) -> Iterator[RemotePath]:
        """What is in a folder; one request for a thousand names."""
        try:
            names = self._ask(lambda fs, path: fs.ls(path, detail=True))
        except FileNotFoundError:
            return
        for entry in names:
            yield self / PurePosixPath(str(entry["name"]).rstrip("/")).name

    def size(self) -> int:
        """In bytes."""
        return int(self._ask(lambda fs, path: fs.size(path)))

    def version(self) -> str:
        """Changes when the file changes."""
        return str(self._ask(lambda fs, path: fs.ukey(path)))

    def read(self, start: int, length: int) -> bytes:
        """The bytes of a range; fewer where the file ends."""
        return bytes(self._ask(lambda fs, path: fs.cat_file(path, start=start, end=start + length)))

    def _ask(self, what: Callable[[Any, str], Result]) -> Result:
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise DataError(f"to read {self}: pip install fsspec (gs:// needs gcsfs too)") from None
        try:
            system, path = url_to_fs(str(self))  # kept by fsspec, for each process
            return what(system, path)
        except FileNotFoundError:
            raise
        except ImportError as error:
            raise DataError(f"to read {self}: {error}") from error
        except Exception as error:  # each service has errors of its own
            raise DataError(f"{self} cannot be read: {error or type(error).__name__}") from error


AnyPath = Path | RemotePath


def as_path(place: str | os.PathLike[str] | RemotePath) -> AnyPath:
    """A URL or a local path; `~` is the home directory."""
    if isinstance(place, RemotePath):
        return place
    text = os.fspath(place)
    return RemotePath(text) if is_url(text) else Path(text).expanduser()


def is_url(place: object) -> bool:
    """Whether a place is given by a URL."""
    return "://" in str(place)


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

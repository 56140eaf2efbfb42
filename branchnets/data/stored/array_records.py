"""Random access to array_record files, with the array_record package, which reads gs:// itself."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from branchnets.data.stored.cache import cached
from branchnets.data.stored.example import DamagedRecordError, first_value
from branchnets.data.stored.remote import fingerprint
from branchnets.errors import DataError
from branchnets.storage import AnyPath, RemotePath

_MOST = 2048  # files kept open; ImageNet has 1,088
_AT_ONCE = 64  # records
_DOUBT = (
    " Or array_record, whose access to buckets is its own, cannot read it: pip install -U "
    "array_record (0.8.6 can), gcloud auth application-default login."
)


@functools.cache
def _readers() -> Any:
    return functools.lru_cache(maxsize=_capacity())(_open)


def forget() -> None:
    """Makes every file be opened anew: a reader that could not open its file never will."""
    _readers().cache_clear()


def _capacity() -> int:
    """How many files are kept open: half of what this process may have, which is raised first.

    Examples are read in random order from all files, and opening one takes several times as long
    as reading an example does.
    """
    try:
        import resource
    except ImportError:  # not a Unix
        return 128
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * _MOST if hard == resource.RLIM_INFINITY else min(2 * _MOST, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (OSError, ValueError):  # some systems allow less than they say
            pass
    return _MOST if soft == resource.RLIM_INFINITY else max(min(soft // 2, _MOST), 1)


def _open(path: AnyPath, version: str) -> Any:
    del version  # another reader for a file that has changed
    try:
        from array_record.python import array_record_module
    except ImportError as error:
        raise DataError(
            f"{path} is in array_record format; to read it: pip install array_record"
        ) from error
    return array_record_module.ArrayRecordReader(str(path), "readahead_buffer_size:0")


class ArrayRecordFile:
    """The records of one array_record file by number: `len(file)`, `file[i] -> bytes`.

    Attributes:
      path: the file.
      doubt: what may be wrong beside the file, where it has other records than it should.
    """

    def __init__(self, path: AnyPath) -> None:
        if isinstance(path, RemotePath) and path.scheme != "gs":
            raise DataError(
                f"{path} is in array_record format, which is read from disks and gs:// only; copy "
                "the directory, or prepare the dataset as TFRecord, which is read from other URLs "
                "too"
            )
        self.path, self.doubt = path, "" if isinstance(path, Path) else _DOUBT
        self._version = fingerprint(path)
        self._length = self._reader.num_records()

    @property
    def _reader(self) -> Any:
        return _readers()(self.path, self._version)

    def __len__(self) -> int:
        return int(self._length)

    def __getitem__(self, i: int) -> bytes:
        """Record `i`; of a bucket with one request."""
        try:
            return bytes(self._reader.read([i])[0])
        except IndexError:
            raise
        except (RuntimeError, ValueError) as error:
            if any(word in str(error).lower() for word in ("corrupted", "truncated")):
                raise DamagedRecordError(f"{self.path}, record {i}: {error}") from error
            forget()
            raise DataError(f"{self.path}, record {i} cannot be read: {error}") from error

    def values(self, feature: str) -> np.ndarray:
        """[n], the first value of a feature of every record; all are read."""

        def make() -> np.ndarray:
            return np.array([self._value(i, record, feature) for i, record in self._all()])

        return cached("features", [self.path], f"1 {feature}", make)

    def _all(self) -> Iterator[tuple[int, bytes]]:
        """Every record with its number; some at a time, which are read at once."""
        for start in range(0, len(self), _AT_ONCE):
            numbers = list(range(start, min(start + _AT_ONCE, len(self))))
            try:
                records = [bytes(record) for record in self._reader.read(numbers)]
            except (RuntimeError, ValueError):
                records = [self[i] for i in numbers]  # says which one it is
            yield from zip(numbers, records, strict=True)

    def _value(self, i: int, record: bytes, feature: str) -> Any:
        part = functools.partial(_part, record)
        return first_value(part, 0, len(record), feature, f"{self.path}, record {i}")


def _part(data: bytes, start: int, length: int) -> bytes:
    return data[start : start + length]

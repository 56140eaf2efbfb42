"""Random access to array_record files, with the array_record package."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from branchnets.data.stored.cache import cached
from branchnets.data.stored.example import DamagedRecordError, first_value
from branchnets.data.stored.remote import fingerprint
from branchnets.errors import DataError
from branchnets.storage import AnyPath

_MOST = 2048  # files kept open; ImageNet has 1,088


@functools.cache
def _readers() -> Any:
    return functools.lru_cache(maxsize=_capacity())(_open)


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


def _open(path: Path, version: str) -> Any:
    del version  # another reader for a file that has changed
    try:
        from array_record.python import array_record_module
    except ImportError as error:
        raise DataError(
            f"{path} is in array_record format; to read it: pip install array_record"
        ) from error
    return array_record_module.ArrayRecordReader(str(path), "readahead_buffer_size:0")


class ArrayRecordFile:
    """The records of one array_record file by number: `len(file)`, `file[i] -> bytes`."""

    def __init__(self, path: AnyPath) -> None:
        if not isinstance(path, Path):
            raise DataError(
                f"{path} is in array_record format, which is read from local disks only; copy the "
                "directory, or prepare the dataset as TFRecord, which is read from URLs too"
            )
        self.path = path
        self._version = fingerprint(path)
        self._length = self._reader.num_records()

    @property
    def _reader(self) -> Any:
        return _readers()(self.path, self._version)

    def __len__(self) -> int:
        return int(self._length)

    def __getitem__(self, i: int) -> bytes:
        try:
            return bytes(self._reader.read([i])[0])
        except IndexError:
            raise
        except (RuntimeError, ValueError) as error:
            if any(word in str(error).lower() for word in ("corrupted", "truncated")):
                raise DamagedRecordError(f"{self.path}, record {i}: {error}") from error
            _readers().cache_clear()  # a reader that could not open its file never will
            raise DataError(f"{self.path}, record {i} cannot be read: {error}") from error

    def values(self, feature: str) -> np.ndarray:
        """[n], the first value of a feature of every record; all are read."""

        def make() -> np.ndarray:
            return np.array([self._value(i, feature) for i in range(len(self))])

        return cached("features", [self.path], f"1 {feature}", make)

    def _value(self, i: int, feature: str) -> Any:
        record = self[i]
        part = functools.partial(_part, record)
        return first_value(part, 0, len(record), feature, f"{self.path}, record {i}")


def _part(data: bytes, start: int, length: int) -> bytes:
    return data[start : start + length]

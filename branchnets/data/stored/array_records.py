"""Random access to array_record files, with the array_record package."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from branchnets.data.stored.cache import cached
from branchnets.data.stored.example import first_value
from branchnets.data.stored.remote import AnyPath, fingerprint
from branchnets.errors import DataError


@functools.lru_cache(maxsize=128)  # a data set has more files than a process may have open
def _array_record(path: Path, version: str) -> Any:
    del version  # another reader for a file that has changed
    try:
        from array_record.python import array_record_module
    except ImportError as error:
        raise DataError(
            f"{path} is in array_record format; to read it: pip install array_record"
        ) from error
    return array_record_module.ArrayRecordReader(str(path))


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
        return _array_record(self.path, self._version)

    def __len__(self) -> int:
        return int(self._length)

    def __getitem__(self, i: int) -> bytes:
        return bytes(self._reader.read([i])[0])

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

"""Random access to TFRecord files, without TensorFlow.

A TFRecord file is a sequence of records: length (uint64, little-endian), masked CRC-32C of the
length, the bytes, masked CRC-32C of the bytes. There is no table of contents, so the offsets are
gathered once and kept in a cache directory, away from the data, which may be read-only.
"""

from __future__ import annotations

import struct

import google_crc32c
import numpy as np

from branchnets.data.stored.cache import cached
from branchnets.data.stored.example import (
    DamagedRecordError,
    example_class,
    first_value,
    parse_example,
)
from branchnets.data.stored.remote import ReadAhead, read_range
from branchnets.storage import AnyPath

__all__ = [
    "DamagedRecordError",
    "TFRecordFile",
    "build_index",
    "example_class",
    "masked_crc",
    "parse_example",
]

#: Records of up to so many bytes are read whole, and many at once, where only a little is wanted.
SHORT = 16 * 2**10
MUCH = 256 * 2**10
#: Bytes that hold the end of a record, the header of the next one and its first features.
LITTLE = 512

_HEADER = struct.Struct("<QI")  # length, masked CRC of the length
_FOOTER = struct.Struct("<I")  # masked CRC of the bytes


def masked_crc(data: bytes) -> int:
    """CRC-32C of `data`, rotated by 15 bits plus a constant, as TFRecord stores it."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def build_index(path: AnyPath) -> np.ndarray:
    """Find every record of a TFRecord file: int64 [n, 2], the offset and length of its bytes.

    There is one read of half a kilobyte for a long record, and one of 256 kB for some dozens of
    short ones: what that comes to over the network is in :mod:`branchnets.data.stored.tfds`.

    Raises:
      DamagedRecordError: a length fails its checksum, or the file ends inside a record.
    """
    read = ReadAhead(path, LITTLE)
    found = []
    position = 0
    while position < read.size:
        header = read(position, _HEADER.size)
        if len(header) < _HEADER.size:
            raise _damaged(path, position, "the file ends inside a record's header")
        length, crc = _HEADER.unpack(header)
        if masked_crc(header[:8]) != crc:
            raise _damaged(path, position, "the length of the record fails its checksum")
        start = position + _HEADER.size
        position = start + length + _FOOTER.size
        if position > read.size:
            raise _damaged(
                path,
                start - _HEADER.size,
                f"the file ends inside a record: it has {read.size} bytes and needs {position}",
            )
        found.append((start, length))
        read.ahead = LITTLE if length > SHORT else MUCH
    return np.array(found, np.int64).reshape(-1, 2)


class TFRecordFile:
    """The records of one TFRecord file by number: `len(file)`, `file[i] -> bytes`.

    Safe to use from several threads, and picklable.

    Attributes:
      path: the file.
      doubt: what may be wrong beside the file, where it has other records than it should: nothing.
    """

    doubt = ""

    def __init__(self, path: AnyPath) -> None:
        self.path = path
        self._index = cached("tfrecord_index", [path], "index 1", lambda: build_index(path))

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, i: int) -> bytes:
        start, length = (int(value) for value in self._index[i])
        raw = read_range(self.path, start, length + _FOOTER.size)
        data = raw[:length]
        if len(raw) < length + _FOOTER.size:
            raise _damaged(self.path, start - _HEADER.size, "the file ends inside a record")
        if masked_crc(data) != _FOOTER.unpack(raw[length:])[0]:
            raise _damaged(self.path, start - _HEADER.size, "the record fails its checksum")
        return data

    def values(self, feature: str) -> np.ndarray:
        """[n], the first value of a feature of every record: int64, float64 or bytes.

        Kept in the cache directory. What lies between is skipped where it is long, so that it
        costs as much as :func:`build_index`.
        """

        def make() -> np.ndarray:
            read = ReadAhead(self.path, LITTLE)
            found = []
            for i, (start, length) in enumerate(self._index.tolist()):
                read.ahead = LITTLE if length > SHORT else MUCH
                found.append(first_value(read, start, length, feature, f"{self.path}, record {i}"))
            return np.array(found)

        return cached("features", [self.path], f"1 {feature}", make)


def _damaged(path: AnyPath, offset: int, what: str) -> DamagedRecordError:
    return DamagedRecordError(
        f"{path}, record at byte {offset}: {what}. Copy or prepare the file again."
    )

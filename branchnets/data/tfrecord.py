"""Random access to TFRecord files, and tf.train.Example messages, without TensorFlow.

A TFRecord file is a sequence of records: length (uint64, little-endian), masked CRC-32C of the
length, the bytes, masked CRC-32C of the bytes. There is no table of contents, so the offsets are
gathered once and kept in a cache directory, away from the data, which may be read-only.
"""

from __future__ import annotations

import functools
import io
import os
import struct
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from branchnets.data.cache import cached
from branchnets.errors import DataError

_HEADER = struct.Struct("<QI")  # length, masked CRC of the length
_FOOTER = struct.Struct("<I")  # masked CRC of the bytes


class DamagedRecordError(DataError):
    """A record file that is truncated or fails its checksum; names the file and the offset."""


def masked_crc(data: bytes) -> int:
    """CRC-32C of `data`, rotated by 15 bits plus a constant, as TFRecord stores it."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def build_index(path: Path) -> np.ndarray:
    """Find every record of a TFRecord file: int64 [n, 2], the offset and length of its bytes.

    Raises:
      DamagedRecordError: a length fails its checksum, or the file ends inside a record.
    """
    size = path.stat().st_size
    found = []
    position = 0
    with path.open("rb") as file:
        while position < size:
            file.seek(position)
            header = file.read(_HEADER.size)
            if len(header) < _HEADER.size:
                raise _damaged(path, position, "the file ends inside a record's header")
            length, crc = _HEADER.unpack(header)
            if masked_crc(header[:8]) != crc:
                raise _damaged(path, position, "the length of the record fails its checksum")
            start = position + _HEADER.size
            position = start + length + _FOOTER.size
            if position > size:
                raise _damaged(
                    path,
                    start - _HEADER.size,
                    f"the file ends inside a record: it has {size} bytes and needs {position}",
                )
            found.append((start, length))
    return np.array(found, np.int64).reshape(-1, 2)


class TFRecordFile:
    """The records of one TFRecord file by number: `len(file)`, `file[i] -> bytes`.

    Safe to use from several threads, and picklable.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._index = cached("tfrecord_index", [path], "index 1", lambda: build_index(path))
        self._file: io.BufferedReader | None = None

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, i: int) -> bytes:
        start, length = (int(value) for value in self._index[i])
        if self._file is None:
            self._file = self.path.open("rb")
        raw = os.pread(self._file.fileno(), length + _FOOTER.size, start)
        data = raw[:length]
        if len(raw) < length + _FOOTER.size:
            raise _damaged(self.path, start - _HEADER.size, "the file ends inside a record")
        if masked_crc(data) != _FOOTER.unpack(raw[length:])[0]:
            raise _damaged(self.path, start - _HEADER.size, "the record fails its checksum")
        return data

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}


def _damaged(path: Path, offset: int, what: str) -> DamagedRecordError:
    return DamagedRecordError(
        f"{path}, record at byte {offset}: {what}. Copy or prepare the file again."
    )


@functools.cache
def example_class() -> Any:
    """The protobuf message class of tf.train.Example, in a descriptor pool of its own.

    example.features.feature[name] has one of bytes_list, float_list and int64_list.
    """
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="branchnets/example.proto", package="branchnets.example", syntax="proto3"
    )
    scope = ".branchnets.example."

    def add(message: Any, name: str, number: int, type_: int, repeated: bool, of: str = "") -> Any:
        label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
        return message.field.add(
            name=name, number=number, type=type_, label=label, type_name=scope + of if of else None
        )

    kinds = {
        "BytesList": field.TYPE_BYTES,
        "FloatList": field.TYPE_FLOAT,
        "Int64List": field.TYPE_INT64,
    }
    for name, type_ in kinds.items():
        add(file.message_type.add(name=name), "value", 1, type_, True)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(kinds, start=1):
        snake = name.replace("List", "_list").lower()
        add(feature, snake, number, field.TYPE_MESSAGE, False, name).oneof_index = 0
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    add(entry, "key", 1, field.TYPE_STRING, False)
    add(entry, "value", 2, field.TYPE_MESSAGE, False, "Feature")
    add(features, "feature", 1, field.TYPE_MESSAGE, True, "Features.FeatureEntry")
    example = file.message_type.add(name="Example")
    add(example, "features", 1, field.TYPE_MESSAGE, False, "Features")

    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("branchnets.example.Example"))


def parse_example(record: bytes) -> dict[str, list[Any]]:
    """The features of a serialised tf.train.Example: name -> list of bytes, floats or ints."""
    features = example_class().FromString(record).features.feature
    out = {}
    for name, feature in features.items():
        kind = feature.WhichOneof("kind")
        out[name] = list(getattr(feature, kind).value) if kind else []
    return out

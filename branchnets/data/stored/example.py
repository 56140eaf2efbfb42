"""tf.train.Example messages, without TensorFlow: whole, or one feature without reading the rest."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from branchnets.errors import ExampleError

#: The first byte of a field 1 that has a length.
_FIELD_1 = 0x0A
_HEAD = 96  # bytes: lengths and a name


class DamagedRecordError(ExampleError):
    """A record file that is truncated or fails its checksum; names the file and the offset."""


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


def first_value(
    read: Callable[[int, int], bytes], start: int, length: int, feature: str, name: str
) -> Any:
    """The first value of one feature of a stored Example: an int, a float or bytes.

    Example is `1: Features`, Features is `1: entry` again and again, an entry `1: name, 2: values`
    (protocol buffers' wire format); the entries before the one that is wanted are skipped by their
    lengths.

    Args:
      read: (start, length) -> bytes of the file, fewer where it ends.
      start: of the record's bytes in the file.
      length: likewise.
      feature: its name.
      name: what messages call the record.

    Raises:
      DamagedRecordError: there is no such feature, or the bytes are no Example.
    """
    end = start + length
    try:
        tag, _, position = _field(read(start, min(_HEAD, length)), start)
        while tag == _FIELD_1 and position < end:
            head = read(position, min(_HEAD, end - position))
            tag, size, inside = _field(head, position)
            key_tag, key_size, key = _field(head[inside - position :], inside)
            whole = head[key - position : key - position + key_size]
            if len(whole) < key_size:
                whole = read(key, key_size)
            if key_tag == _FIELD_1 and whole == feature.encode():
                return _parse_entry(read(inside, size))[feature][0]
            position = inside + size
    except (DecodeError, IndexError, KeyError, ValueError):
        pass
    raise DamagedRecordError(
        f"{name} has no feature {feature!r} with a value; it is damaged or of another version. "
        "Copy or prepare the file again."
    )


def _field(data: bytes, position: int) -> tuple[int, int, int]:
    """(tag, length, position after both) of a field with a length, at the start of `data`."""
    length = shift = 0
    for count, byte in enumerate(data[1:11], 2):
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            return data[0], length, position + count
        shift += 7
    raise ValueError("no length")


def _parse_entry(entry: bytes) -> dict[str, list[Any]]:
    """The feature of one entry, parsed as an Example that has no others."""
    features = bytes([_FIELD_1]) + _varint(len(entry)) + entry
    return parse_example(bytes([_FIELD_1]) + _varint(len(features)) + features)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])

"""Writes tiny datasets the way TensorFlow Datasets lays them out, without TensorFlow.

The bytes are put together here from the formats' descriptions, so that the readers are not
tested against themselves.
"""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import google_crc32c
import numpy as np
from PIL import Image


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def message(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def example_bytes(features: dict[str, bytes | int]) -> bytes:
    """A serialised tf.train.Example."""
    entries = b""
    for name, value in features.items():
        if isinstance(value, bytes):
            feature = message(1, message(1, value))
        else:
            feature = message(3, message(1, varint(value)))
        entries += message(1, message(1, name.encode()) + message(2, feature))
    return message(1, entries)


def framed(record: bytes) -> bytes:
    """A record as it lies in a TFRecord file."""

    def crc(data: bytes) -> bytes:
        value = google_crc32c.value(data)
        return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    length = struct.pack("<Q", len(record))
    return length + crc(length) + record + crc(record)


def png(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(out, "png")
    return out.getvalue()


def toy_images(count: int, seed: int = 0, size: int = 32, channels: int = 3) -> np.ndarray:
    shape = (count, size, size, channels)
    return np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)


def write_dataset(
    root: Path,
    name: str,
    splits: dict[str, list[int]],
    *,
    version: str = "3.0.2",
    file_format: str = "tfrecord",
    channels: int = 3,
    labels: dict[str, int] | None = None,
    **info,
) -> Path:
    """Write `splits` (name -> records per shard); example i of a split has label i mod K.

    The images of a split are toy_images(n, seed=position of the split), counted shard by shard.
    """
    labels = labels or {"label": 10}
    directory = root / name / version
    directory.mkdir(parents=True)
    for number, (split, lengths) in enumerate(splits.items()):
        images = toy_images(sum(lengths), number, channels=channels)
        start = 0
        for shard, length in enumerate(lengths):
            suffix = f"{shard:05d}-of-{len(lengths):05d}"
            path = directory / f"{name}-{split}.{file_format}-{suffix}"
            records = [
                example_bytes(
                    {
                        "id": f"{split}_{i}".encode(),
                        "image": png(images[i]),
                        **{feature: i % count for feature, count in labels.items()},
                    }
                )
                for i in range(start, start + length)
            ]
            write_records(path, records, file_format)
            start += length
    entries = [
        {
            "name": split,
            "shardLengths": [str(n) for n in lengths],
            "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        }
        for split, lengths in splits.items()
    ]
    described = {"name": name, "version": version, "fileFormat": file_format, "splits": entries}
    (directory / "dataset_info.json").write_text(json.dumps({**described, **info}))
    core = "tensorflow_datasets.core.features"
    dimensions = ["32", "32", str(channels)]
    features = {
        "id": {"pythonClassName": f"{core}.text_feature.Text", "text": {}},
        "image": {
            "pythonClassName": f"{core}.image_feature.Image",
            "image": {"dtype": "uint8", "shape": {"dimensions": dimensions}},
        },
    }
    for feature, count in labels.items():
        features[feature] = {
            "pythonClassName": f"{core}.class_label_feature.ClassLabel",
            "classLabel": {"numClasses": str(count)},
        }
        names = "".join(f"{feature} {k}\n" for k in range(count))
        (directory / f"{feature}.labels.txt").write_text(names)
    kind = f"{core}.features_dict.FeaturesDict"
    whole = {"pythonClassName": kind, "featuresDict": {"features": features}}
    (directory / "features.json").write_text(json.dumps(whole))
    return directory


def write_records(path: Path, records: list[bytes], file_format: str) -> None:
    if file_format == "tfrecord":
        path.write_bytes(b"".join(map(framed, records)))
        return
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()


def write_examples(
    root: Path,
    name: str,
    splits: dict[str, list[list[dict[str, bytes | int]]]],
    classes: tuple[str, ...],
    features: tuple[str, ...] = ("image", "label"),
    *,
    version: str = "5.1.0",
    file_format: str = "tfrecord",
    dimensions: tuple[int, int, int] = (-1, -1, 3),
    **info,
) -> Path:
    """Write examples that are given, by split and shard; features in the order of the arguments.

    "image" is an image of `dimensions`, "label" a class; all others are texts.
    """
    directory = root / name / version
    directory.mkdir(parents=True, exist_ok=True)
    for split, shards in splits.items():
        for number, shard in enumerate(shards):
            path = directory / f"{name}-{split}.{file_format}-{number:05d}-of-{len(shards):05d}"
            records = [example_bytes({f: example[f] for f in features}) for example in shard]
            write_records(path, records, file_format)
    entries = [
        {"name": split, "shardLengths": [str(len(shard)) for shard in shards]}
        for split, shards in splits.items()
    ]
    described = {"name": name, "version": version, "fileFormat": file_format, "splits": entries}
    (directory / "dataset_info.json").write_text(json.dumps({**described, **info}))
    core = "tensorflow_datasets.core.features"
    sizes = {"dtype": "uint8", "shape": {"dimensions": [str(d) for d in dimensions]}}
    kinds = {
        "image": {"pythonClassName": f"{core}.image_feature.Image", "image": sizes},
        "label": {
            "pythonClassName": f"{core}.class_label_feature.ClassLabel",
            "classLabel": {"numClasses": str(len(classes))},
        },
    }
    text = {"pythonClassName": f"{core}.text_feature.Text", "text": {}}
    kind = f"{core}.features_dict.FeaturesDict"
    described = {feature: kinds.get(feature, text) for feature in features}
    whole = {"pythonClassName": kind, "featuresDict": {"features": described}}
    (directory / "features.json").write_text(json.dumps(whole))
    (directory / "label.labels.txt").write_text("".join(f"{name}\n" for name in classes))
    return directory

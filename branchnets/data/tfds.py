"""The records of datasets that TensorFlow Datasets has prepared, read without TensorFlow."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from branchnets.data.base import Split
from branchnets.data.cache import cached
from branchnets.data.records import Encoded
from branchnets.data.tfds_info import (
    DatasetInfo,
    DatasetNotFound,
    find_dataset,
    interleave_order,
    resolve_data_dir,
)
from branchnets.data.tfrecord import DamagedRecordError, TFRecordFile, parse_example
from branchnets.errors import DataError

__all__ = [
    "DatasetInfo",
    "DatasetNotFound",
    "TfdsRecords",
    "TfdsSource",
    "find_dataset",
    "interleave_order",
    "labelled_splits",
    "read_split",
    "resolve_data_dir",
]

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class _ArrayRecordFile:
    """The records of one array_record file by number."""

    def __init__(self, path: Path) -> None:
        try:
            from array_record.python import array_record_module
        except ImportError as error:
            raise DataError(
                f"{path} is in array_record format; to read it: pip install array_record"
            ) from error
        self.path = path
        self._reader = array_record_module.ArrayRecordReader(str(path))

    def __len__(self) -> int:
        return self._reader.num_records()

    def __getitem__(self, i: int) -> bytes:
        return self._reader.read([i])[0]

    def __reduce__(self) -> tuple[Any, ...]:
        return (_ArrayRecordFile, (self.path,))


class TfdsSource:
    """Random access to the examples of one split: `len(source)`, `source[i] -> dict`.

    The order is that of tfds: of `tfds.load(..., shuffle_files=False)` for TFRecord, and of
    `tfds.data_source` (shard after shard) for array_record, which tfds.load cannot read. An image
    is a uint8 array [H, W, C], a class label an int, a text a str; any other feature the list of
    bytes, ints or floats that the record holds.

    Args:
      directory: of one version of a prepared dataset, from `find_dataset`.
      split: as in `dataset_info.json`.
      features: which to decode; all if None.

    Raises:
      KeyError: no such split or feature.
      DatasetNotFound: a record file is missing.
      DamagedRecordError: a record file is truncated (also on access, if a record is damaged).
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        split: str,
        features: Sequence[str] | None = None,
    ) -> None:
        self.info = DatasetInfo.read(directory)
        lengths = self.info.shard_lengths(split)
        names = list(self.info.features) if features is None else list(features)
        for name in names:
            if name not in self.info.features:
                raise DataError(
                    f"{directory} has no feature {name!r}, only {list(self.info.features)}"
                )
        self._specs = {name: self.info.features[name] for name in names}
        self._shards = [self._open(path) for path in self.info.shard_paths(split)]
        for shard, length in zip(self._shards, lengths, strict=True):
            if len(shard) != length:
                raise DamagedRecordError(
                    f"{shard.path} has {len(shard)} records where dataset_info.json says {length}: "
                    "it is truncated or of another version. Copy or prepare it again."
                )
        self._starts = np.concatenate([[0], np.cumsum(lengths)])
        in_turn = self.info.file_format == "tfrecord" and not self.info.ordered
        self._order = interleave_order(lengths, cycle=16 if in_turn else 1)

    def _open(self, path: Path) -> Any:
        if not path.exists():
            raise DatasetNotFound(f"{path} is missing: the dataset is not whole; prepare it again")
        return TFRecordFile(path) if self.info.file_format == "tfrecord" else _ArrayRecordFile(path)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def record(self, i: int) -> bytes:
        """The serialised tf.train.Example number `i`."""
        shard, number = self._place(i)
        return self._shards[shard][number]

    def name(self, i: int) -> str:
        """What messages call example `i`."""
        shard, number = self._place(i)
        return f"{self._shards[shard].path}, record {number}"

    def _place(self, i: int) -> tuple[int, int]:
        """The number of the shard of example `i`, and its own in there."""
        position = self._order[i]
        shard = int(np.searchsorted(self._starts, position, side="right")) - 1
        return shard, int(position - self._starts[shard])

    def __getitem__(self, i: int) -> dict[str, Any]:
        raw = parse_example(self.record(i))
        return {name: _decode(raw.get(name, []), spec) for name, spec in self._specs.items()}


def _decode(values: list[Any], spec: dict[str, Any]) -> Any:
    kind = spec["pythonClassName"].rsplit(".", 1)[-1]
    decoder = _DECODERS.get(kind)
    return values if decoder is None else decoder(values[0], spec)


def _decode_image(data: bytes, spec: dict[str, Any]) -> np.ndarray:
    image: Image.Image = Image.open(io.BytesIO(data))
    channels = int(spec["image"]["shape"]["dimensions"][-1])
    if channels in _MODES and image.mode != _MODES[channels]:
        image = image.convert(_MODES[channels])
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


_DECODERS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "Image": _decode_image,
    "ClassLabel": lambda value, spec: int(value),
    "Text": lambda value, spec: value.decode("utf-8"),
}


class TfdsRecords:
    """The examples of a split as they are stored: bytes of an image file, and a class.

    Args:
      directory: of one version of a prepared dataset, from `find_dataset`.
      split: as in `dataset_info.json`.
      image: name of the feature that is the image.
      label: name of the feature that is its class.

    Raises:
      DataError: as :class:`TfdsSource`; on access also where a record lacks one of the two.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        split: str,
        image: str = "image",
        label: str = "label",
    ) -> None:
        self._source = TfdsSource(directory, split, (image, label))
        self._split, self._image, self._label = split, image, label

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, i: int) -> Encoded:
        raw = parse_example(self._source.record(i))
        try:
            return Encoded(raw[self._image][0], int(raw[self._label][0]), self._source.name(i))
        except (KeyError, IndexError):
            raise DamagedRecordError(
                f"{self._source.name(i)} has no {self._image!r} with a {self._label!r}; it is "
                "damaged or of another version. Copy or prepare it again."
            ) from None

    def labels(self) -> np.ndarray:
        """int32 [n]; the first time all records are read, then they are in the cache directory."""

        def make() -> np.ndarray:
            return np.array([self[i].label for i in range(len(self))], np.int32)

        return cached("labels", self.files(), f"1 {self._split} {self._label}", make)

    @property
    def what(self) -> str:
        return f"{self._split} {self._image}"

    def files(self) -> list[Path]:
        return self._source.info.shard_paths(self._split)


def labelled_splits(directory: str | os.PathLike[str], label: str) -> dict[str, TfdsRecords]:
    """The records of a dataset's splits: "train", "test" and perhaps "validation".

    A test split that has no labels (-1, as ImageNet's) is left out; where there is no other, the
    validation split is the test split.

    Args:
      directory: of one version of a prepared dataset.
      label: name of the feature that is the class.
    """
    info = DatasetInfo.read(directory)
    image = info.image_feature()
    found: dict[str, TfdsRecords] = {
        name: TfdsRecords(directory, name, image, label)
        for name in ("train", "validation", "test")
        if name in info.splits and any(info.shard_lengths(name))
    }
    if "test" in found and found["test"][0].label < 0:
        del found["test"]
    if "test" not in found and "validation" in found:
        found["test"] = found.pop("validation")
    if not found:
        raise DataError(
            f"{directory} has the splits {sorted(info.splits)}; none is called train, validation "
            "or test"
        )
    return found


def read_split(
    directory: str | os.PathLike[str], split: str, image: str = "image", label: str = "label"
) -> Split:
    """Decode a whole split of equal-sized images into memory, in the order of TfdsSource.

    CIFAR-10 takes ten seconds of PNG decoding, so the arrays are kept in the cache directory.
    """
    source = TfdsSource(directory, split, (image, label))
    paths = source.info.shard_paths(split)
    if not len(source):
        raise DataError(f"{directory}: split {split!r} is empty")

    def images() -> np.ndarray:
        source = TfdsSource(directory, split, (image,))
        first = source[0][image]
        out = np.empty((len(source), *first.shape), np.uint8)
        for i in range(len(source)):
            decoded = source[i][image]
            if decoded.shape != first.shape:
                raise DataError(
                    f"{directory}/{split}: example {i} is {decoded.shape}, the first is "
                    f"{first.shape}; images of several sizes cannot be held as one array"
                )
            out[i] = decoded
        return out

    def labels() -> np.ndarray:
        source = TfdsSource(directory, split, (label,))
        return np.array([source[i][label] for i in range(len(source))], np.int32)

    return Split(
        cached("decoded", paths, f"1 {split} {image}", images),
        cached("decoded", paths, f"1 {split} {label}", labels),
    )

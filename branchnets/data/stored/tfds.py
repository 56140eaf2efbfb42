"""The records of datasets that TensorFlow Datasets has prepared, read without TensorFlow.

TFRecord files have no table of contents, so the places of the records are found once, many shards
at a time, and kept in the cache directory. On a local disk that is seconds. From a URL (`gs://`) it
costs a request of 512 bytes for each record longer than 16 kB (shorter ones share requests of
256 kB), and as many again the first time that labels are needed beforehand, to hold out validation
images or to take a subset. For ImageNet, 1.33 million records: 1.33 million requests and 0.7 GB,
0.53 dollars at 0.0004 a thousand requests (Google's list price for reads), and a quarter of an hour
at 1,500 requests a second (an estimate, not measured). An epoch of training, too, is a request a
record.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from PIL import Image

from branchnets.data.base import Split
from branchnets.data.images import MODES
from branchnets.data.stored import array_records
from branchnets.data.stored.bars import bar
from branchnets.data.stored.cache import cached
from branchnets.data.stored.example import DamagedRecordError, parse_example
from branchnets.data.stored.held import check_fits
from branchnets.data.stored.records import Encoded, digest
from branchnets.data.stored.tfds_info import (
    DatasetInfo,
    DatasetNotFound,
    find_dataset,
    interleave_order,
    resolve_data_dir,
)
from branchnets.data.stored.tfrecord import TFRecordFile
from branchnets.errors import DataError
from branchnets.storage import AnyPath, RemotePath

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

_THREADS = 64  # requests at a time; what they wait for is a server, or a disk
_QUIET_SECONDS = 5
_Shard = TFRecordFile | array_records.ArrayRecordFile


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

    Attributes:
      paths: the record files in order; behind a URL with their sizes and versions.

    Raises:
      KeyError: no such split or feature.
      DatasetNotFound: a record file is missing.
      DamagedRecordError: a record file is truncated (also on access, if a record is damaged).
      DataError: one in a bucket is, or cannot be read.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | RemotePath,
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
        self.paths = self.info.shard_paths(split)
        if isinstance(self.info.directory, RemotePath):  # a thousand sizes and versions a request
            listed: dict[str, AnyPath] = {str(path): path for path in self.info.directory.iterdir()}
            self.paths = [listed.get(str(path), path) for path in self.paths]
        self._shards = self._every(self._open, self.paths, "finding records")
        for shard, length in zip(self._shards, lengths, strict=True):
            if len(shard) != length:
                raise _mismatch(shard, length)
        self._starts = np.concatenate([[0], np.cumsum(lengths)])
        in_turn = self.info.file_format == "tfrecord" and not self.info.ordered
        self._order = interleave_order(lengths, cycle=16 if in_turn else 1)

    def _open(self, path: AnyPath) -> _Shard:
        try:
            if self.info.file_format == "tfrecord":
                return TFRecordFile(path)
            return array_records.ArrayRecordFile(path)
        except FileNotFoundError:
            raise DatasetNotFound(
                f"{path} is missing: the dataset is not whole; prepare it again"
            ) from None

    def _every(self, what: Callable[[Any], Any], items: list[Any], doing: str) -> list[Any]:
        """`what` of every item, many at a time; says how far it is when it takes long."""
        with ThreadPoolExecutor(_THREADS) as pool:
            done = pool.map(what, items)
            title = f"{self.info.name}, {doing}"
            return list(bar(done, title, len(items), delay=_QUIET_SECONDS))

    def values(self, feature: str) -> np.ndarray:
        """[n], the first value of a feature of every example: int64, float64 or bytes.

        The first time all records are visited (their long features are skipped where that is
        possible); then the values are in the cache directory.
        """
        shards = [shard for shard in self._shards if len(shard)]
        parts = self._every(lambda shard: shard.values(feature), shards, f"reading {feature!r}")
        return np.concatenate(parts)[self._order] if parts else np.zeros(0, np.int64)

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


def _mismatch(shard: _Shard, length: int) -> DataError:
    """The error for a file that has other than `length` records, as far as can be seen."""
    message = (
        f"{shard.path} has {len(shard)} records where dataset_info.json says {length}: it is "
        "truncated or of another version. Copy or prepare it again."
    )
    if not shard.doubt:
        return DamagedRecordError(message)
    array_records.forget()
    return DataError(message + shard.doubt)


def _decode(values: list[Any], spec: dict[str, Any]) -> Any:
    kind = spec["pythonClassName"].rsplit(".", 1)[-1]
    decoder = _DECODERS.get(kind)
    return values if decoder is None else decoder(values[0], spec)


def _decode_image(data: bytes, spec: dict[str, Any]) -> np.ndarray:
    image: Image.Image = Image.open(io.BytesIO(data))
    channels = int(spec["image"]["shape"]["dimensions"][-1])
    if channels in MODES and image.mode != MODES[channels]:
        image = image.convert(MODES[channels])
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
        directory: str | os.PathLike[str] | RemotePath,
        split: str,
        image: str = "image",
        label: str = "label",
    ) -> None:
        self._source = TfdsSource(directory, split, (image, label))
        self._split, self._image, self._label = split, image, label

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, i: int) -> Encoded:
        record = self._source.record(i)
        try:
            raw = parse_example(record)
            return Encoded(raw[self._image][0], int(raw[self._label][0]), self._source.name(i))
        except (DecodeError, KeyError, IndexError, TypeError, ValueError):
            raise DamagedRecordError(
                f"{self._source.name(i)} has no {self._image!r} with a {self._label!r}; it is "
                "damaged or of another version. Copy or prepare it again."
            ) from None

    def labels(self) -> np.ndarray:
        """int32 [n]; the first time all records are visited, see :meth:`TfdsSource.values`."""
        return self._source.values(self._label).astype(np.int32)

    def values(self, feature: str) -> np.ndarray:
        """[n], the first value of another feature; see :meth:`TfdsSource.values`."""
        return self._source.values(feature)

    @property
    def what(self) -> str:
        return f"{self._split} {self._image}"

    def files(self) -> list[AnyPath]:
        return self._source.paths

    def identity(self) -> str:
        info = self._source.info
        lengths = ",".join(map(str, info.shard_lengths(self._split)))
        return f"{info.file_format} {digest(self._label.encode(), lengths.encode())}"


def labelled_splits(
    directory: str | os.PathLike[str] | RemotePath, label: str, unlabelled: Sequence[str] = ()
) -> dict[str, TfdsRecords]:
    """The records of a dataset's splits: "train", "test" and perhaps "validation".

    A test split that has no labels (-1, as ImageNet's) is left out; where there is no other, the
    validation split is the test split.

    Args:
      directory: of one version of a prepared dataset.
      label: name of the feature that is the class.
      unlabelled: splits that are known to have no labels; their files are not opened.
    """
    info = DatasetInfo.read(directory)
    image = info.image_feature()
    found: dict[str, TfdsRecords] = {
        name: TfdsRecords(directory, name, image, label)
        for name in ("train", "validation", "test")
        if name not in unlabelled and name in info.splits and any(info.shard_lengths(name))
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
    directory: str | os.PathLike[str] | RemotePath,
    split: str,
    image: str = "image",
    label: str = "label",
) -> Split:
    """Decode a whole split of equal-sized images into memory, in the order of TfdsSource.

    CIFAR-10 takes ten seconds of PNG decoding, so the arrays are kept in the cache directory.
    """
    source = TfdsSource(directory, split, (image, label))
    paths = source.paths
    if not len(source):
        raise DataError(f"{directory}: split {split!r} is empty")

    def images() -> np.ndarray:
        source = TfdsSource(directory, split, (image,))
        first = source[0][image]
        check_fits(len(source), first.shape, f"{directory}/{split}")
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

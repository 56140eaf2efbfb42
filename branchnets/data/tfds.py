"""Datasets that TensorFlow Datasets has prepared, read without TensorFlow.

A prepared dataset is a directory `<data_dir>/<name>/<version>` with `dataset_info.json` (splits,
shards), `features.json` (what a record holds), `*.labels.txt` (class names) and record files in
TFRecord or array_record format.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from branchnets.data.base import Split
from branchnets.data.cache import cached
from branchnets.data.tfrecord import DamagedRecordError, TFRecordFile, parse_example
from branchnets.errors import DataError

_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
_FORMATS = ("tfrecord", "array_record")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class DatasetNotFound(DataError, FileNotFoundError):
    """The dataset has not been prepared; the message has the command that prepares it."""


def resolve_data_dir(data_dir: str | os.PathLike[str] | None) -> tuple[Path, str]:
    """The directory of prepared datasets, and where that came from.

    `data_dir`, else the environment's TFDS_DATA_DIR, else ~/tensorflow_datasets.
    """
    if data_dir:
        return Path(data_dir).expanduser(), "data.data_dir"
    if env := os.environ.get("TFDS_DATA_DIR"):
        return Path(env).expanduser(), "TFDS_DATA_DIR"
    return Path.home() / "tensorflow_datasets", "the default of tfds"


def find_dataset(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    flag: str = "--config.data.data_dir",
) -> Path:
    """The directory of the highest version of a prepared dataset.

    Args:
      name: as tfds calls it, "cifar10" or "name/config".
      data_dir: see `resolve_data_dir`.
      flag: of the command line that gives `data_dir`, for the message.

    Raises:
      DatasetNotFound: no complete version is there.
    """
    root, origin = resolve_data_dir(data_dir)
    origin = flag.removeprefix("--config.") if data_dir else origin
    versions = {
        tuple(int(part) for part in info.parent.name.split(".")): info.parent
        for info in (root / name).glob("*/dataset_info.json")
        if re.fullmatch(r"\d+\.\d+\.\d+", info.parent.name)
    }
    if versions:
        return versions[max(versions)]
    raise DatasetNotFound(
        f"dataset {name!r} is not in {root} ({origin}). Prepare it once, in any environment that "
        "has TensorFlow (it is not needed afterwards):\n"
        "  pip install tensorflow tensorflow-datasets importlib_resources\n"
        '  python -c "import tensorflow_datasets as tfds; '
        f'tfds.builder({name!r}, data_dir={str(root)!r}).download_and_prepare()"\n'
        f"If it is prepared elsewhere, give {flag}=DIR or set TFDS_DATA_DIR=DIR, "
        f"where DIR holds {name}/."
    )


def interleave_order(lengths: Sequence[int], cycle: int = 16, block: int = 16) -> np.ndarray:
    """The order in which `tfds.load(shuffle_files=False)` visits the records of its shards.

    tf.data's interleave: `cycle` shards are open at a time and give `block` records each in turn;
    an exhausted shard's place goes to the next one when its turn comes.

    Args:
      lengths: records in each shard.
      cycle, block: tfds's defaults.

    Returns:
      int64 [n], positions counted through the shards one after another.
    """
    starts = np.concatenate([[0], np.cumsum(lengths)])[:-1]
    waiting = iter(range(len(lengths)))
    slots: list[list[int] | None] = [None] * cycle  # [next position, end]
    closed: set[int] = set()
    order: list[np.ndarray] = []
    turn = 0
    while len(closed) < cycle:
        slot = slots[turn]
        if slot is None and (shard := next(waiting, None)) is not None:
            start = int(starts[shard])
            slot = slots[turn] = [start, start + int(lengths[shard])]
        if slot is None:
            closed.add(turn)
        else:
            stop = min(slot[0] + block, slot[1])
            order.append(np.arange(slot[0], stop))
            if stop - slot[0] < block:
                slots[turn] = None
            slot[0] = stop
        turn = (turn + 1) % cycle
    return np.concatenate(order) if order else np.zeros(0, np.int64)


@dataclass(frozen=True)
class DatasetInfo:
    """What the json files of a prepared dataset say.

    Attributes:
      directory: of the version.
      name: of the dataset.
      file_format: "tfrecord" or "array_record".
      splits: name -> the entry of dataset_info.json.
      features: name -> the entry of features.json.
      ordered: tfds wrote the records unshuffled, and reads the shards one after another.
    """

    directory: Path
    name: str
    file_format: str
    splits: dict[str, Any]
    features: dict[str, Any]
    ordered: bool

    @classmethod
    def read(cls, directory: str | os.PathLike[str]) -> DatasetInfo:
        """Read the json files of a prepared dataset; an unknown file format is a ValueError."""
        directory = Path(directory)
        info = json.loads((directory / "dataset_info.json").read_text())
        features = json.loads((directory / "features.json").read_text())
        file_format = info.get("fileFormat", "tfrecord")
        if file_format not in _FORMATS:
            raise DataError(
                f"{directory}: records are in format {file_format!r}; "
                f"only {' and '.join(_FORMATS)} can be read"
            )
        return cls(
            directory,
            info["name"],
            file_format,
            {split["name"]: split for split in info["splits"]},
            features["featuresDict"]["features"],
            bool(info.get("disableShuffling", False)),
        )

    def shard_lengths(self, split: str) -> list[int]:
        """Records per shard of a split; a KeyError lists the splits there are."""
        if split not in self.splits:
            raise DataError(f"{self.directory} has no split {split!r}, only {list(self.splits)}")
        return [int(length) for length in self.splits[split]["shardLengths"]]

    def shard_paths(self, split: str) -> list[Path]:
        """The record files of a split in order."""
        count = len(self.shard_lengths(split))
        template = self.splits[split].get("filepathTemplate") or _TEMPLATE
        digits = max(5, len(str(count)))
        paths = []
        for shard in range(count):
            index, total = f"{shard:0{digits}d}", f"{count:0{digits}d}"
            paths.append(
                self.directory
                / template.format(
                    DATASET=self.name,
                    SPLIT=split,
                    FILEFORMAT=self.file_format,
                    SHARD_INDEX=index,
                    NUM_SHARDS=total,
                    SHARD_X_OF_Y=f"{index}-of-{total}",
                )
            )
        return paths

    def class_names(self, feature: str) -> tuple[str, ...]:
        """The class names of a ClassLabel feature, in label order."""
        if feature not in self.features:
            raise DataError(
                f"{self.directory} has no feature {feature!r}, only {sorted(self.features)}"
            )
        count = int(self.features[feature]["classLabel"]["numClasses"])
        path = self.directory / f"{feature}.labels.txt"
        if not path.exists():
            return tuple(str(k) for k in range(count))
        names = tuple(path.read_text().split("\n")[:count])
        if len(names) != count:
            raise DataError(f"{path} names {len(names)} classes, features.json says {count}")
        return names


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
        position = self._order[i]
        shard = int(np.searchsorted(self._starts, position, side="right")) - 1
        return self._shards[shard][int(position - self._starts[shard])]

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

"""What TensorFlow Datasets says of the datasets it has prepared: where, which splits, which order.

A prepared dataset is a directory `<data_dir>/<name>/<version>` with `dataset_info.json` (splits,
shards), `features.json` (what a record holds), `*.labels.txt` (class names) and record files in
TFRecord or array_record format.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from branchnets.errors import DataError
from branchnets.storage import AnyPath, RemotePath, as_path

_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
_FORMATS = ("tfrecord", "array_record")


class DatasetNotFound(DataError, FileNotFoundError):
    """The dataset has not been prepared; the message has the command that prepares it."""


def resolve_data_dir(data_dir: str | os.PathLike[str] | None) -> tuple[AnyPath, str]:
    """The directory (or URL) of prepared datasets, and where that came from.

    `data_dir`, else the environment's TFDS_DATA_DIR, else ~/tensorflow_datasets.
    """
    if data_dir:
        return as_path(data_dir), "data.data_dir"
    if env := os.environ.get("TFDS_DATA_DIR"):
        return as_path(env), "TFDS_DATA_DIR"
    return Path.home() / "tensorflow_datasets", "the default of tfds"


def find_dataset(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    flag: str = "--config.data.data_dir",
) -> AnyPath:
    """The directory of the highest version of a prepared dataset.

    Args:
      name: as tfds calls it, "cifar10" or "name/config".
      data_dir: see `resolve_data_dir`; the dataset's own directory, or that of a version, will do.
      flag: of the command line that gives `data_dir`, for the message.

    Raises:
      DatasetNotFound: no complete version is there.
    """
    root, origin = resolve_data_dir(data_dir)
    origin = flag.removeprefix("--config.") if data_dir else origin
    above, last = str(root).rstrip("/").split("/")[-2:] if "/" in str(root) else ("", str(root))
    own = name.rpartition("/")[2]
    if above == own and _is_version(root):
        return root
    versions = {
        tuple(int(part) for part in directory.name.split(".")): directory
        for directory in _children(root / name) or (_children(root) if last == own else [])
        if _is_version(directory)
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


def _is_version(directory: AnyPath) -> bool:
    numbered = re.fullmatch(r"\d+\.\d+\.\d+", directory.name)
    return bool(numbered) and (directory / "dataset_info.json").exists()


def _children(directory: AnyPath) -> list[AnyPath]:
    if isinstance(directory, Path) and not directory.is_dir():
        return []
    return list(directory.iterdir())


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
      supervised: names of the features of an example and of its label, where tfds knows them.
    """

    directory: AnyPath
    name: str
    file_format: str
    splits: dict[str, Any]
    features: dict[str, Any]
    ordered: bool
    supervised: tuple[str, str] | None = None

    @classmethod
    def read(cls, directory: str | os.PathLike[str] | RemotePath) -> DatasetInfo:
        """Read the json files of a prepared dataset; an unknown file format is a ValueError."""
        directory = as_path(directory)
        info, features = (_json(directory, f"{what}.json") for what in ("dataset_info", "features"))
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
            _features(directory, features),
            bool(info.get("disableShuffling", False)),
            _supervised(info),
        )

    def shard_lengths(self, split: str) -> list[int]:
        """Records per shard of a split; a KeyError lists the splits there are."""
        if split not in self.splits:
            raise DataError(f"{self.directory} has no split {split!r}, only {list(self.splits)}")
        return [int(length) for length in self.splits[split]["shardLengths"]]

    def shard_paths(self, split: str) -> list[AnyPath]:
        """The record files of a split in order."""
        count = len(self.shard_lengths(split))
        template = self.splits[split].get("filepathTemplate") or _TEMPLATE
        digits = max(5, len(str(count)))
        paths: list[AnyPath] = []
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

    def image_feature(self) -> str:
        """The name of the feature that is the image."""
        known = self.supervised or ("image", "")
        return self._one_of("Image", known[0], "an image-classification set")

    def label_feature(self, label: str = "label") -> str:
        """The name of the feature that is the class.

        Args:
          label: `data.label`; "label", its default, also stands for the label that tfds gives with
            `as_supervised`, and for the only class label that there is.
        """
        if label != "label":
            self.class_names(label)  # a wrong name is told with the right ones
            return label
        known = self.supervised or ("", "label")
        return self._one_of("ClassLabel", known[1], "one of them by data.label")

    def _one_of(self, kind: str, usual: str, wanted: str) -> str:
        names = [name for name in self.features if self._kind(name) == kind]
        if usual in names:
            return usual
        if len(names) == 1:
            return names[0]
        raise DataError(
            f"{self.directory} has {len(names)} features of kind {kind} ({sorted(names)}) among "
            f"{sorted(self.features)}; give {wanted}"
        )

    def _kind(self, feature: str) -> str:
        return str(self.features[feature].get("pythonClassName", "")).rpartition(".")[2]

    def image_shape(self, feature: str) -> tuple[int | None, int | None, int]:
        """(H, W, C) of an Image feature; H and W are None where images differ."""
        dimensions = self.features[feature]["image"].get("shape", {}).get("dimensions", (-1, -1, 3))
        height, width, channels = (int(d) if int(d) > 0 else None for d in dimensions)
        return height, width, channels or 3

    def class_names(self, feature: str) -> tuple[str, ...]:
        """The class names of a ClassLabel feature, in label order."""
        if feature not in self.features:
            raise DataError(
                f"{self.directory} has no feature {feature!r}, only {sorted(self.features)}"
            )
        if self._kind(feature) != "ClassLabel":
            labels = sorted(name for name in self.features if self._kind(name) == "ClassLabel")
            raise DataError(f"{self.directory}: {feature!r} is no class label; those are {labels}")
        count = int(self.features[feature]["classLabel"]["numClasses"])
        path = self.directory / f"{feature}.labels.txt"
        if not path.exists():
            return tuple(str(k) for k in range(count))
        names = tuple(path.read_text().split("\n")[:count])
        if len(names) != count:
            raise DataError(f"{path} names {len(names)} classes, features.json says {count}")
        return names


def _json(directory: AnyPath, file: str) -> dict[str, Any]:
    try:
        return dict(json.loads((directory / file).read_text()))
    except FileNotFoundError:
        if file == "features.json":
            return {}
        raise DatasetNotFound(f"{directory} has no {file}: the dataset is not whole") from None
    except ValueError as error:
        raise DataError(f"{directory}/{file} is damaged ({error}); copy it again") from None


def _features(directory: AnyPath, content: dict[str, Any]) -> dict[str, Any]:
    try:
        return dict(content["featuresDict"]["features"])
    except KeyError:
        raise DataError(
            f"{directory} has no features.json, or that of an old tfds. Write it anew with a "
            'recent one: python -c "import tensorflow_datasets as tfds; '
            "b = tfds.builder('NAME', data_dir='DIR'); b.info.write_to_directory(b.data_dir)\""
        ) from None


def _supervised(info: dict[str, Any]) -> tuple[str, str] | None:
    items = info.get("supervisedKeys", {}).get("tuple", {}).get("items", ())
    keys = tuple(str(item.get("featureKey", "")) for item in items)
    return (keys[0], keys[1]) if len(keys) == 2 else None

"""Any image-classification set that TensorFlow Datasets has prepared, by name: `tfds/NAME`."""

from __future__ import annotations

from typing import Any

from branchnets.data.base import Dataset, DataSpec, field
from branchnets.data.prepare import reshaped
from branchnets.data.statistics import usual
from branchnets.data.stored.held import as_splits
from branchnets.data.stored.tfds import DatasetInfo, find_dataset, labelled_splits
from branchnets.errors import DataError


def _info(name: str, cfg: Any) -> DatasetInfo:
    flag = field(cfg, "data_dir_flag", "--config.data.data_dir")
    return DatasetInfo.read(find_dataset(name, field(cfg, "data_dir"), flag))


def spec(name: str, cfg: Any = None) -> DataSpec:
    """Shape and classes as the files of tfds describe them; no record is read.

    Args:
      name: as tfds calls the set, "food101" or "name/config".
      cfg: `data_dir`, as everywhere; `label`, the name of the feature that is the class, where
        there are several; `channels`; `image_size`, where the images are of several sizes.

    Raises:
      DataError: not prepared, no image or no class label among its features, or no size.
    """
    info = _info(name, cfg)
    label = info.label_feature(field(cfg, "label", "label"))
    height, width, channels = info.image_shape(info.image_feature())
    if height is None or width is None:
        if (size := field(cfg, "image_size")) is None:
            raise DataError(
                f"the images of tfds/{name} are of several sizes; set data.image_size, the side "
                "in pixels of what the network is given"
            )
        height = width = int(size)
    names = info.class_names(label)
    return DataSpec((height, width, int(field(cfg, "channels", channels))), len(names), names)


def read(name: str, cfg: Any = None) -> Dataset:
    """The splits "train", "test" and "validation", as far as there are any.

    Where there is no labelled test split, the validation split is the test split. Mean and
    standard deviation are ImageNet's unless the config gives others.

    Args:
      name: as :func:`spec`.
      cfg: likewise; `stream`, False to hold all images in memory.
    """
    info, given = _info(name, cfg), spec(name, cfg)
    records = labelled_splits(info.directory, info.label_feature(field(cfg, "label", "label")))
    streamed = bool(field(cfg, "stream", True))
    shape = reshaped(given, cfg, cropped=False).image_shape if streamed else given.image_shape
    splits = as_splits(name, records, shape, streamed)
    return Dataset(f"tfds/{name}", given.class_names, splits, *usual(shape[2]))

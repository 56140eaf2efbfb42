"""Images in folders, one folder a class, or in lists of path and label.

    DIR/train/cat/1.jpg     DIR/train/dog/1.jpg     ...     or     DIR/train.csv
    DIR/test/cat/2.jpg      DIR/test/dog/2.jpg      ...     or     DIR/test.csv

A list has a line `path,label` for each image, relative to the list; a first line may name the
columns. Classes are in the order of their names, or of their values where all are numbers. `val`
(or `validation`) stands for the validation split where there is a `test`, and for the test split
where there is none.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from branchnets.data.base import Dataset, DataSpec, Split, field
from branchnets.data.images import fit, native_shape, open_image, stack
from branchnets.data.statistics import channel_statistics, usual
from branchnets.data.stored.cache import cached
from branchnets.data.stored.held import check_fits
from branchnets.data.stored.listing import classes_of, first_image, index, split_places
from branchnets.data.stored.records import FileRecords, StreamedSplit
from branchnets.errors import DataError
from branchnets.storage import AnyPath, as_path


def spec(cfg: Any = None) -> DataSpec:
    """Classes by the names of folders; the shape from the config, else from the first image."""
    train = split_places(_root(field(cfg, "data_dir")))["train"]
    names = classes_of(train)
    size, channels = field(cfg, "image_size"), field(cfg, "channels")
    if size is None or channels is None:
        if size is None and field(cfg, "stream", False):
            raise DataError(
                "data.stream=True of a folder needs data.image_size, the side in pixels of the "
                "images that the network is given"
            )
        shape = native_shape(open_image(first_image(train)))
        size = shape[:2] if size is None else (size, size)
        channels = shape[2] if channels is None else channels
    else:
        size = (size, size)
    return DataSpec((int(size[0]), int(size[1]), int(channels)), len(names), names)


def read(cfg: Any = None) -> Dataset:
    """All images, resized and cropped to `image_size`, or as they are if they share one shape.

    Held in memory, mean and standard deviation are those of the training images' pixels; streamed
    (`stream`), those of ImageNet.

    Args:
      cfg: `data_dir`; `stream`; `image_size` (optional where images are held); `channels`
        (optional: 1 if the first training image is grey, else 3).

    Raises:
      DataError: no such folder, a split or class that is missing or empty, an image that cannot be
        read, several shapes without `image_size`, colour among grey images without `channels`, or
        too many pixels.
    """
    found = index(_root(field(cfg, "data_dir")))
    shape = spec(cfg).image_shape
    if field(cfg, "stream", False):
        streams = {name: StreamedSplit(files, shape) for name, files in found.splits.items()}
        return Dataset("folder", found.class_names, streams, *usual(shape[2]))
    check_fits(sum(len(files) for files in found.splits.values()), shape, str(found.root))
    splits = {
        name: Split(_pixels(files, shape, cfg), files.labels())
        for name, files in found.splits.items()
    }
    mean, std = channel_statistics(splits["train"].images)
    return Dataset("folder", found.class_names, splits, mean, std)


def _root(data_dir: str | None) -> AnyPath:
    if not data_dir:
        raise DataError("data.name=folder needs data.data_dir=DIR with DIR/train and DIR/test")
    root = as_path(data_dir)
    if not root.is_dir():
        raise DataError(f"there is no folder {root} (data.data_dir)")
    return root


def _pixels(files: FileRecords, shape: tuple[int, int, int], cfg: Any) -> np.ndarray:
    """uint8 [n, H, W, C]; what the config leaves open must be the same in all images."""
    any_size = field(cfg, "image_size") is not None
    any_channels = field(cfg, "channels") is not None or shape[2] != 1
    paths = files.files()

    def read_one(path: AnyPath) -> np.ndarray:
        image = open_image(path)
        own = native_shape(image)
        if not any_size and own[:2] != shape[:2]:
            raise DataError(
                f"{path} is {own[0]}x{own[1]}, the first image {shape[0]}x{shape[1]}; set "
                "data.image_size to resize all of them (data.stream=True as well to crop them "
                "at random as they are)"
            )
        if not any_channels and own[2] != shape[2]:
            raise DataError(
                f"{path} has colours, the first image has none; set data.channels to 3 "
                "(or to 1, for grey)"
            )
        return fit(image, shape)

    def make() -> np.ndarray:
        return stack(lambda i: read_one(paths[i]), (len(paths), *shape))

    return cached("folder", paths, f"1 {shape} {any_size} {any_channels}", make)

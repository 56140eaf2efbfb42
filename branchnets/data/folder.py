"""Images in folders, one folder a class, held in memory.

    DIR/train/cat/1.jpg     DIR/train/dog/1.jpg     ...
    DIR/test/cat/2.jpg      DIR/test/dog/2.jpg      ...

`val/` (or `validation/`) stands for the validation split where there is a `test/`, and for the
test split where there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from branchnets.data.base import Dataset, DataSpec, Split, field
from branchnets.data.cache import cached
from branchnets.data.images import fit, list_images, native_shape, open_image
from branchnets.errors import DataError

#: Bytes of decoded pixels that are still held in memory.
MAX_BYTES = 8 * 2**30

_VALIDATION = ("val", "validation")
_CHUNK = 4096  # images


@dataclass(frozen=True)
class Files:
    """The image files of one split.

    Attributes:
      paths: n of them, sorted by class and path.
      labels: int32 [n].
    """

    paths: tuple[Path, ...]
    labels: np.ndarray


@dataclass(frozen=True)
class Index:
    """What is in the folders; no image is read for it.

    Attributes:
      root: DIR.
      class_names: of the training split, sorted; their order is that of the labels.
      splits: "train", "test" and perhaps "validation".
    """

    root: Path
    class_names: tuple[str, ...]
    splits: Mapping[str, Files]


def index(data_dir: str | None) -> Index:
    """Lists classes and files.

    Args:
      data_dir: DIR.

    Raises:
      DataError: no such folder, a split or class that is missing or empty; the message says how
        the folders should lie.
    """
    root = _root(data_dir)
    folders = _split_folders(root)
    names = _class_names(folders["train"])
    return Index(root, names, {split: _files(folder, names) for split, folder in folders.items()})


def spec(cfg: Any = None) -> DataSpec:
    """Classes by the names of folders; the shape from the config, else from the first image."""
    train = _split_folders(_root(field(cfg, "data_dir")))["train"]
    names = _class_names(train)
    size, channels = field(cfg, "image_size"), field(cfg, "channels")
    if size is None or channels is None:
        shape = _first_shape(list_images(train / names[0]), train / names[0])
        size = shape[:2] if size is None else (size, size)
        channels = shape[2] if channels is None else channels
    else:
        size = (size, size)
    return DataSpec((int(size[0]), int(size[1]), int(channels)), len(names), names)


def read(cfg: Any = None) -> Dataset:
    """All images, resized and cropped to `image_size`, or as they are if they share one shape.

    Mean and standard deviation are those of the training images' pixels.

    Args:
      cfg: `data_dir`; `image_size` (optional); `channels` (optional: 1 if the first training image
        is grey, else 3).

    Raises:
      DataError: as :func:`index`; an image that cannot be read, several shapes without
        `image_size`, colour among grey images without `channels`, or too many pixels.
    """
    found = index(field(cfg, "data_dir"))
    shape = spec(cfg).image_shape
    count = sum(len(files.paths) for files in found.splits.values())
    if count * int(np.prod(shape)) > MAX_BYTES:
        raise DataError(
            f"{found.root} has {count:,} images; at {shape} they take more than "
            f"{MAX_BYTES // 2**30} GiB of memory. Set a smaller data.image_size."
        )
    splits = {
        name: Split(_pixels(files, shape, cfg), files.labels)
        for name, files in found.splits.items()
    }
    mean, std = channel_statistics(splits["train"].images)
    return Dataset("folder", found.class_names, splits, mean, std)


def channel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, standard deviation) of each channel of uint8 [n, H, W, C], pixels from 0 to 1.

    Taken from exact sums, so they do not depend on order or machine; a channel of one colour is
    given the deviation of one grey level.
    """
    channels = images.shape[-1]
    counts = np.zeros((channels, 256), np.int64)
    for start in range(0, len(images), _CHUNK):  # bincount makes eight bytes of every pixel
        part = images[start : start + _CHUNK]
        counts += [np.bincount(part[..., c].ravel(), minlength=256) for c in range(channels)]
    levels = np.arange(256)
    mean, std = [], []
    for count in counts:
        n, total = int(count.sum()), int((count * levels).sum())
        variance = (n * int((count * levels**2).sum()) - total**2) / n**2
        mean.append(total / n / 255)
        std.append(max(variance**0.5, 1.0) / 255)
    return tuple(mean), tuple(std)


def _root(data_dir: str | None) -> Path:
    if not data_dir:
        raise DataError("data.name=folder needs data.data_dir=DIR with DIR/train and DIR/test")
    root = Path(data_dir).expanduser()
    if not root.is_dir():
        raise DataError(f"there is no folder {root} (data.data_dir)")
    return root


def _split_folders(root: Path) -> dict[str, Path]:
    validation = [root / name for name in _VALIDATION if (root / name).is_dir()]
    folders = {name: root / name for name in ("train", "test") if (root / name).is_dir()}
    if validation:
        folders["validation" if "test" in folders else "test"] = validation[0]
    for name in ("train", "test"):
        if name not in folders:
            raise DataError(
                f"{root} has no folder {name!r}; images lie in {root}/train/CLASS/ and "
                f"{root}/test/CLASS/ (or val/CLASS/)"
            )
    return folders


def _class_names(folder: Path) -> tuple[str, ...]:
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not names:
        raise DataError(f"{folder} has no folders; each class has one with its images")
    return tuple(names)


def _files(folder: Path, class_names: tuple[str, ...]) -> Files:
    if strange := sorted(set(_class_names(folder)) - set(class_names)):
        raise DataError(f"{folder} has a class {strange[0]!r} that the training split has not")
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(class_names):
        if not (folder / name).is_dir():
            continue  # a test split may lack a class
        found = list_images(folder / name)
        if not found and folder.name == "train":
            raise DataError(f"{folder / name} has no images")
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise DataError(f"{folder} has no images: the split is empty")
    return Files(tuple(paths), np.array(labels, np.int32))


def _first_shape(paths: list[Path], folder: Path) -> tuple[int, int, int]:
    if not paths:
        raise DataError(f"{folder} has no images")
    return native_shape(open_image(paths[0]))


def _pixels(files: Files, shape: tuple[int, int, int], cfg: Any) -> np.ndarray:
    """uint8 [n, H, W, C]; what the config leaves open must be the same in all images."""
    any_size = field(cfg, "image_size") is not None
    any_channels = field(cfg, "channels") is not None or shape[2] != 1

    def make() -> np.ndarray:
        out = np.empty((len(files.paths), *shape), np.uint8)
        for i, path in enumerate(files.paths):
            image = open_image(path)
            own = native_shape(image)
            if not any_size and own[:2] != shape[:2]:
                raise DataError(
                    f"{path} is {own[0]}x{own[1]}, the first image {shape[0]}x{shape[1]}; set "
                    "data.image_size to resize all of them"
                )
            if not any_channels and own[2] != shape[2]:
                raise DataError(
                    f"{path} has colours, the first image has none; set data.channels to 3 "
                    "(or to 1, for grey)"
                )
            out[i] = fit(image, shape)
        return out

    return cached("folder", files.paths, f"1 {shape} {any_size} {any_channels}", make)

"""Mini-ImageNet: 600 images of each of 100 ImageNet classes, 84x84, in memory (1.3 GB).

O. Vinyals et al., "Matching networks for one shot learning", NIPS 2016, with the classes of S. Ravi
and H. Larochelle, "Optimization as a model for few-shot learning", ICLR 2017; 500 images of a class
for training and 100 for testing, as in "Connectivity learning in multi-branch networks" (appendix
C).

Differs: the published lists do not say which file of ImageNet an image is, so these are the first
600 of each class by file name: a set of the same recipe, not the papers' images. And where the
papers resize to a square, here the shorter side is resized and the longer one cropped, as
everywhere else (`data.images.fit`), so that a deployed network sees a photograph as in training.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from branchnets.data.base import Dataset, DataSpec, Split, field
from branchnets.data.cache import cached
from branchnets.data.images import fit, list_images, open_image
from branchnets.data.statistics import channel_statistics
from branchnets.errors import DataError

PER_CLASS, TRAIN_PER_CLASS, SIZE = 600, 500, 84
_LINE_SECONDS = 5


@functools.cache
def classes() -> dict[str, str]:
    """WordNet identifier -> English name, of the 100 classes in label order."""
    text = (resources.files("branchnets.data") / "mini_imagenet.tsv").read_text(encoding="utf-8")
    rows = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    return dict(rows[1:])


def spec(cfg: Any = None) -> DataSpec:
    """84x84 colour images of 100 classes."""
    del cfg
    names = tuple(classes().values())
    return DataSpec((SIZE, SIZE, 3), len(names), names)


def read(cfg: Any = None) -> Dataset:
    """Decode and resize the images of an ImageNet folder, and keep them in the cache directory.

    The first time takes about three minutes of one core (all are used; 3 ms an image) on a local
    disk, the next ones seconds.

    Args:
      cfg: `data_dir`, with a folder of JPEG files a class, DIR/train/n01532829/*.JPEG or
        DIR/n01532829/*.JPEG, as ImageNet's training images are distributed; other classes may lie
        beside the 100.

    Raises:
      DataError: no such folder, a class that is missing or has fewer than 600 images, or an image
        that cannot be read; the message has its path.
    """
    data_dir = field(cfg, "data_dir")
    if not data_dir:
        raise DataError(
            "data.name=mini_imagenet needs data.data_dir=DIR with ImageNet's training images in "
            "DIR/train/n01532829/*.JPEG (or DIR/n01532829/*.JPEG) and so on"
        )
    splits = read_folders(Path(data_dir).expanduser(), classes())
    mean, std = channel_statistics(splits["train"].images)
    return Dataset("mini_imagenet", tuple(classes().values()), splits, mean, std)


def read_folders(
    root: Path,
    wnids: Sequence[str] | dict[str, str],
    per_class: int = PER_CLASS,
    train_per_class: int = TRAIN_PER_CLASS,
    size: int = SIZE,
) -> dict[str, Split]:
    """The splits "train" and "test".

    Args:
      root: DIR of :func:`read`.
      wnids: names of the classes' folders, in label order.
      per_class: images of a class, the first by name.
      train_per_class: how many of them, the first again, are for training.
      size: of the sides in pixels.

    Returns:
      Splits sorted by class and name: uint8 [n, size, size, 3] and int32 [n].

    Raises:
      DataError: as :func:`read`.
    """
    folders = _class_folders(root, tuple(wnids))
    paths = [_first(folder, per_class) for folder in folders]
    parts = {
        "train": [own[:train_per_class] for own in paths],
        "test": [own[train_per_class:] for own in paths],
    }
    splits = {}
    for name, part in parts.items():
        files = [path for own in part for path in own]
        labels = np.repeat(np.arange(len(part)), [len(own) for own in part])
        make = functools.partial(_decode, files, size, f"mini_imagenet, {name}")
        splits[name] = Split(cached("mini_imagenet", files, f"1 {size}", make), labels)
    return splits


def _class_folders(root: Path, wnids: tuple[str, ...]) -> list[Path]:
    if not root.is_dir():
        raise DataError(f"there is no folder {root} (data.data_dir)")
    top = root / "train" if (root / "train").is_dir() else root
    missing = [wnid for wnid in wnids if not (top / wnid).is_dir()]
    if not missing:
        return [top / wnid for wnid in wnids]
    if any(root.glob("imagenet2012/*/dataset_info.json")) or any(root.glob("*/dataset_info.json")):
        raise DataError(
            f"{root} holds records of TensorFlow Datasets; mini_imagenet is read from image "
            f"files, {root}/train/{missing[0]}/*.JPEG and so on: the archives in "
            "ILSVRC2012_img_train.tar, each unpacked into a folder of its name"
        )
    raise DataError(
        f"{top / missing[0]} is missing, the folder of one of the {len(wnids)} classes of "
        f"mini_imagenet ({len(missing)} of them are not there)"
    )


def _first(folder: Path, count: int) -> list[Path]:
    found = list_images(folder)
    if len(found) < count:
        raise DataError(
            f"{folder} has {len(found)} images; mini_imagenet takes the first {count} of a class"
        )
    return found[:count]


def _decode(paths: list[Path], size: int, title: str) -> np.ndarray:
    """uint8 [n, size, size, 3]; Pillow decodes outside Python's lock, so threads are enough."""
    out = np.empty((len(paths), size, size, 3), np.uint8)

    def decode(i: int) -> None:
        out[i] = fit(open_image(paths[i]), (size, size, 3))

    with ThreadPoolExecutor() as pool:
        done = pool.map(decode, range(len(paths)))
        # The last line says how long it took.
        for _ in tqdm(done, title, len(paths), file=sys.stderr, mininterval=_LINE_SECONDS):
            pass
    return out

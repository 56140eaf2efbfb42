"""Mini-ImageNet: 600 images of each of 100 ImageNet classes, 84x84, in memory (1.3 GB).

From ImageNet's class folders, or from tfds's imagenet2012.

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
from collections.abc import Sequence
from typing import Any

import numpy as np

from branchnets.data.base import Dataset, DataSpec, field
from branchnets.data.images import list_names
from branchnets.data.prepare import reshaped
from branchnets.data.sets.locate import TREE, locate
from branchnets.data.sets.published import table
from branchnets.data.statistics import channel_statistics, usual
from branchnets.data.stored.held import hold
from branchnets.data.stored.records import ChosenRecords, FileRecords, Records, StreamedSplit
from branchnets.data.stored.tfds import DatasetInfo, TfdsRecords
from branchnets.errors import DataError
from branchnets.storage import AnyPath

PER_CLASS, TRAIN_PER_CLASS, SIZE = 600, 500, 84
#: Examples of every split, of 100 classes.
EXAMPLES = {"train": 100 * TRAIN_PER_CLASS, "test": 100 * (PER_CLASS - TRAIN_PER_CLASS)}
LAYOUT = (
    "train/n01532829/*.JPEG (or n01532829/*.JPEG) and so on: the archives in "
    "ILSVRC2012_img_train.tar, each unpacked into a folder of its name"
)


@functools.cache
def classes() -> dict[str, str]:
    """WordNet identifier -> English name, of the 100 classes in label order."""
    return {wnid: name for wnid, name in table("mini_imagenet.tsv")}


def spec(cfg: Any = None) -> DataSpec:
    """84x84 colour images of 100 classes."""
    del cfg
    names = tuple(classes().values())
    return DataSpec((SIZE, SIZE, 3), len(names), names)


def read(cfg: Any = None) -> Dataset:
    """Decode and resize the images of ImageNet's 100 classes, and keep them in the cache directory.

    The first time takes about three minutes of one core (all are used; 3 ms an image) on a local
    disk, the next ones seconds. From tfds's records all names and labels are read before that,
    once.

    Args:
      cfg: `data_dir`, with tfds's imagenet2012, or with a folder of JPEG files a class,
        DIR/train/n01532829/*.JPEG or DIR/n01532829/*.JPEG, as ImageNet's training images are
        distributed; other classes may lie beside the 100. `stream`, to decode as images are needed.

    Raises:
      DataError: neither is there, a class that is missing or has fewer than 600 images, or an image
        that cannot be read; the message has its path.
    """
    wnids = tuple(classes())
    marks = (*TREE, *wnids)
    place, prepared = locate("imagenet2012", cfg, LAYOUT, marks)
    chosen = from_tfds(place, wnids) if prepared else from_folders(place, wnids)
    shape = reshaped(spec(), cfg, cropped=False).image_shape
    streams = divide(chosen, len(wnids), shape)
    names = tuple(classes().values())
    if field(cfg, "stream", False):
        return Dataset("mini_imagenet", names, streams, *usual(shape[2]))
    splits = {part: hold(split, f"mini_imagenet, {part}") for part, split in streams.items()}
    mean, std = channel_statistics(splits["train"].images)
    return Dataset("mini_imagenet", names, splits, mean, std)


def divide(
    records: Records,
    num_classes: int,
    image_shape: tuple[int, int, int],
    train_per_class: int = TRAIN_PER_CLASS,
) -> dict[str, StreamedSplit]:
    """The splits "train" and "test" of records that are sorted by class, as many of each.

    Args:
      records: n, a multiple of the number of classes.
      num_classes: K.
      image_shape: (H, W, C) of the splits.
      train_per_class: how many of a class, the first, are for training.
    """
    places = np.arange(len(records)).reshape(num_classes, -1)
    parts = {"train": places[:, :train_per_class], "test": places[:, train_per_class:]}
    return {
        name: StreamedSplit(records, image_shape, part.reshape(-1)) for name, part in parts.items()
    }


def from_folders(root: AnyPath, wnids: Sequence[str], per_class: int = PER_CLASS) -> FileRecords:
    """The first files of each class by name, from a folder a class.

    Args:
      root: DIR of :func:`read`.
      wnids: names of the classes' folders, in label order.
      per_class: files of a class.

    Returns:
      K * per_class records sorted by class and name.

    Raises:
      DataError: as :func:`read`.
    """
    top = root / "train" if (root / "train").is_dir() else root
    if missing := [wnid for wnid in wnids if not (top / wnid).is_dir()]:
        raise DataError(
            f"{top / missing[0]} is missing, the folder of one of the {len(wnids)} classes of "
            f"mini_imagenet ({len(missing)} of them are not there)"
        )
    names = []
    for wnid in wnids:
        own = list_names(top / wnid)
        _check_enough(str(top / wnid), len(own), per_class)
        names += [f"{wnid}/{name}" for name in own[:per_class]]
    return FileRecords(top, names, np.repeat(np.arange(len(wnids)), per_class))


def from_tfds(
    directory: AnyPath, wnids: Sequence[str], per_class: int = PER_CLASS
) -> ChosenRecords:
    """The same records from tfds's imagenet2012, whose records keep the names of the files.

    Args:
      directory: of the version.
      wnids: WordNet identifiers of the classes, in label order.
      per_class: records of a class.

    Raises:
      DataError: as :func:`read`.
    """
    info = DatasetInfo.read(directory)
    label = info.label_feature()
    records = TfdsRecords(directory, "train", info.image_feature(), label)
    given = info.class_names(label)
    labels, names = records.labels(), records.values("file_name")
    chosen = []
    for wnid in wnids:
        own = np.flatnonzero(labels == given.index(wnid)) if wnid in given else labels[:0]
        _check_enough(f"class {wnid} in {directory}", len(own), per_class)
        chosen.append(own[np.argsort(names[own], kind="stable")][:per_class])
    return ChosenRecords(
        records, np.concatenate(chosen), np.repeat(np.arange(len(wnids)), per_class)
    )


def _check_enough(what: str, count: int, wanted: int) -> None:
    if count < wanted:
        raise DataError(
            f"{what} has {count} images; mini_imagenet takes the first {wanted} of a class"
        )

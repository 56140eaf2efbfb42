"""What a dataset is, and the pure functions that split, shrink and reshape one.

Everything here is numpy on the host: no device, no file, no dataset by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from branchnets.errors import DataError


@dataclass(frozen=True)
class Split:
    """Images and labels of one split.

    Attributes:
      images: uint8 [n, H, W, C], raw pixels 0..255.
      labels: int32 [n], class indices.

    Raises:
      TypeError: images are not uint8, or labels are not integers.
      ValueError: wrong number of dimensions, or lengths that differ.
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        images, labels = np.asarray(self.images), np.asarray(self.labels)
        if images.dtype != np.uint8:
            raise TypeError(
                f"images must be uint8 pixels in 0..255, got {images.dtype}; "
                "scale and cast them before building a Split (normalisation happens on the device)"
            )
        if images.ndim != 4:
            raise DataError(f"images must be [n, H, W, C], got shape {images.shape}")
        if not np.issubdtype(labels.dtype, np.integer):
            raise TypeError(f"labels must be integers, got {labels.dtype}")
        if labels.shape != images.shape[:1]:
            raise DataError(
                f"labels must be [n] with n = {len(images)} images, got shape {labels.shape}"
            )
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", labels.astype(np.int32, copy=False))

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: np.ndarray) -> Split:
        """The examples at `indices` (int [m]), in that order."""
        return Split(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class DataSpec:
    """What a model needs to know of a dataset.

    Attributes:
      image_shape: (H, W, C).
      num_classes: K.
      class_names: K names in label order.
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Dataset:
    """A whole dataset in host memory.

    Attributes:
      name: the registry name.
      class_names: K names in label order.
      splits: "train" and "test", and "validation" where one was held out.
      mean, std: one number per channel, in units where a pixel runs from 0 to 1.

    Raises:
      ValueError: a label outside 0..K-1, splits whose image shapes differ, or a wrong number
        of channel statistics.
    """

    name: str
    class_names: tuple[str, ...]
    splits: Mapping[str, Split]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.splits:
            raise DataError(f"dataset {self.name!r} has no splits")
        shapes = {name: split.images.shape[1:] for name, split in self.splits.items()}
        if len(set(shapes.values())) > 1:
            raise DataError(f"dataset {self.name!r}: image shapes differ by split: {shapes}")
        channels = self.image_shape[-1]
        if len(self.mean) != channels or len(self.std) != channels:
            raise DataError(
                f"dataset {self.name!r} has {channels} channels but {len(self.mean)} means "
                f"and {len(self.std)} standard deviations"
            )
        for name, split in self.splits.items():
            check_labels(split.labels, self.num_classes, f"{self.name}/{name}")

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        height, width, channels = next(iter(self.splits.values())).images.shape[1:]
        return height, width, channels

    @property
    def spec(self) -> DataSpec:
        return DataSpec(self.image_shape, self.num_classes, self.class_names)

    def split(self, name: str) -> Split:
        """The split of that name; a KeyError lists the names there are."""
        if name not in self.splits:
            raise DataError(
                f"dataset {self.name!r} has no split {name!r}, only {sorted(self.splits)}"
                + ("; set data.validation_size to hold one out" if name == "validation" else "")
            )
        return self.splits[name]


def field(cfg: Any, name: str, default: Any = None) -> Any:
    """`cfg.name`, or `default` where the field is absent or an empty placeholder."""
    value = getattr(cfg, name, None)
    return default if value is None else value


def check_labels(labels: np.ndarray, num_classes: int, where: str) -> None:
    """Raise a ValueError naming the first label of `labels` (int [n]) outside 0..K-1."""
    bad = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if bad.size:
        raise DataError(
            f"{where}: label {int(labels[bad[0]])} of example {int(bad[0])} is outside the "
            f"{num_classes} classes 0..{num_classes - 1} ({bad.size} such labels in all)"
        )


def balanced_indices(labels: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Choose `size` examples, as many of each class as the classes allow.

    Every class gives the same number; a class too small for its share gives all it has and the
    others make up for it; a remainder goes to classes drawn by the seed.

    Args:
      labels: int [n].
      size: how many to choose, at most n.
      seed: fixes the choice for ever (the legacy Mersenne Twister stream of numpy, which unlike
        `default_rng` is guaranteed not to change between releases).

    Returns:
      int64 [size], increasing.

    Raises:
      ValueError: size is negative or larger than n.
    """
    if not 0 <= size <= len(labels):
        raise DataError(f"cannot choose {size} of {len(labels)} examples")
    random = np.random.RandomState(seed)
    classes, counts = np.unique(labels, return_counts=True)
    order = random.permutation(len(classes))
    quota = np.zeros(len(classes), np.int64)
    left = size
    while left:
        open_classes = [c for c in order if quota[c] < counts[c]]
        share = left // len(open_classes)
        for c in open_classes[:left] if share == 0 else open_classes:
            more = min(max(share, 1), counts[c] - quota[c])
            quota[c] += more
            left -= more
    chosen = [
        random.permutation(np.flatnonzero(labels == value))[:count]
        for value, count in zip(classes, quota, strict=True)
    ]
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)


def hold_out(split: Split, size: int, seed: int) -> tuple[Split, Split]:
    """Divide a split in two: (the rest, a class-balanced part of `size` fixed by `seed`)."""
    held = balanced_indices(split.labels, size, seed)
    rest = np.setdiff1d(np.arange(len(split)), held, assume_unique=True)
    return split.take(rest), split.take(held)


def resize(split: Split, size: int) -> Split:
    """Resize every image to size x size pixels, bilinear (Pillow, antialiased when shrinking)."""
    n, height, width, channels = split.images.shape
    if (height, width) == (size, size):
        return split
    out = np.empty((n, size, size, channels), np.uint8)
    for i, image in enumerate(split.images):
        for c in range(channels):  # by channel: Pillow has no image of 2 or 5 channels
            plane = Image.fromarray(np.ascontiguousarray(image[:, :, c]))
            out[i, :, :, c] = np.asarray(plane.resize((size, size), Image.Resampling.BILINEAR))
    return Split(out, split.labels)


def pad(split: Split, size: int) -> Split:
    """Surround every image with zeros up to size x size; an odd pixel goes right and below."""
    _, height, width, _ = split.images.shape
    if height > size or width > size:
        raise DataError(f"data.pad_to={size} is smaller than the {height}x{width} images")
    return Split(surround(split.images, size, size), split.labels)


def surround(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Images [n, H, W, C] with zeros around them; an odd pixel goes right and below."""
    rows, columns = height - images.shape[1], width - images.shape[2]
    if not rows and not columns:
        return images
    top, left = rows // 2, columns // 2
    return np.pad(images, ((0, 0), (top, rows - top), (left, columns - left), (0, 0)))


def prepare(dataset: Dataset, cfg: Any) -> Dataset:
    """Apply the config's splitting and reshaping to a freshly read dataset.

    In this order: hold out `validation_size` of the training split, keep a class-balanced
    `train_size` of what is left (both fixed by `split_seed`), resize to `image_size`, pad to
    `pad_to`. The test split is never drawn from or added to.

    Args:
      dataset: as read, with a "train" split if validation_size or train_size is set.
      cfg: anything with those attributes; absent or None means "leave it".
    """
    splits = dict(dataset.splits)
    seed = int(field(cfg, "split_seed", 0))
    validation_size = int(field(cfg, "validation_size", 0))
    train_size = field(cfg, "train_size")
    if validation_size or train_size is not None:
        train = dataset.split("train")
        if validation_size:
            if "validation" in splits:
                raise DataError(
                    f"dataset {dataset.name!r} has a validation split of its own; "
                    "leave data.validation_size empty"
                )
            if not 0 < validation_size < len(train):
                raise DataError(
                    f"data.validation_size={validation_size} must lie between 0 and the "
                    f"{len(train)} training examples of {dataset.name!r}"
                )
            train, splits["validation"] = hold_out(train, validation_size, seed)
        if train_size is not None:
            if not 0 < train_size <= len(train):
                raise DataError(
                    f"data.train_size={train_size} must lie between 1 and the {len(train)} "
                    f"training examples of {dataset.name!r} (after holding out validation)"
                )
            train = train.take(balanced_indices(train.labels, int(train_size), seed))
        splits["train"] = train
    if (size := field(cfg, "image_size")) is not None:
        splits = {name: resize(split, int(size)) for name, split in splits.items()}
    if (size := field(cfg, "pad_to")) is not None:
        splits = {name: pad(split, int(size)) for name, split in splits.items()}
    return replace(dataset, splits=splits)


def reshaped(spec: DataSpec, cfg: Any, padded: bool = True) -> DataSpec:
    """The DataSpec after the config's `image_size` and, where `padded`, `pad_to`; no image."""
    height, width, channels = spec.image_shape
    if (size := field(cfg, "image_size")) is not None:
        height = width = int(size)
    if padded and (size := field(cfg, "pad_to")) is not None:
        height = width = int(size)
    return replace(spec, image_shape=(height, width, channels))

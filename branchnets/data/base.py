"""What a dataset is, and the pure functions that split one.

Everything here is numpy on the host: no device, no file, no dataset by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from branchnets.data.stored.records import StreamedSplit, digest
from branchnets.errors import DataError

AnySplit = TypeVar("AnySplit", bound="Split | StreamedSplit")

#: What is subtracted: a number per channel, or an image [H, W, C] (nested, as JSON has it).
Mean = tuple[float, ...] | tuple[tuple[tuple[float, ...], ...], ...]


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

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    def take(self, indices: np.ndarray) -> Split:
        """The examples at `indices` (int [m]), in that order."""
        return Split(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class DataSpec:
    """What a model needs to know of a dataset.

    Attributes:
      image_shape: (H, W, C) of what the network is given: of the crop, where there is one.
      num_classes: K.
      class_names: K names in label order.
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Dataset:
    """A whole dataset: in host memory, or streamed.

    Attributes:
      name: the registry name.
      class_names: K names in label order.
      splits: "train" and "test", and "validation" where there is one; all of one kind.
      mean: one number per channel, or an image [H, W, C] of the stored images' shape (per-pixel
        mean), in units where a pixel runs from 0 to 1.
      std: one number per channel, in the same units.
      crop_size: side of the square that the network is given of a stored image, at a random place
        in training and in the middle in evaluation; None: the whole image.

    Raises:
      ValueError: a label outside 0..K-1, splits whose image shapes differ, statistics of another
        shape, or a crop larger than the images.
    """

    name: str
    class_names: tuple[str, ...]
    splits: Mapping[str, Split | StreamedSplit]
    mean: Mean
    std: tuple[float, ...]
    crop_size: int | None = None

    def __post_init__(self) -> None:
        if not self.splits:
            raise DataError(f"dataset {self.name!r} has no splits")
        shapes = {name: split.image_shape for name, split in self.splits.items()}
        if len(set(shapes.values())) > 1:
            raise DataError(f"dataset {self.name!r}: image shapes differ by split: {shapes}")
        self._check_crop()
        self._check_statistics()
        for name, split in self.splits.items():
            if isinstance(split, Split):  # streamed labels are checked as they are read
                check_labels(split.labels, self.num_classes, f"{self.name}/{name}")

    def _check_crop(self) -> None:
        height, width, _ = self.stored_shape
        if self.crop_size is not None and not 0 < self.crop_size <= min(height, width):
            raise DataError(
                f"dataset {self.name!r}: a crop of {self.crop_size} pixels square does not fit "
                f"into its {height}x{width} images"
            )

    def _check_statistics(self) -> None:
        channels, shape = self.stored_shape[-1], np.shape(self.mean)
        if shape[-1:] != (channels,) or len(self.std) != channels:
            raise DataError(
                f"dataset {self.name!r} has {channels} channels but {(*shape, 0)[-2]} means "
                f"and {len(self.std)} standard deviations"
            )
        # One that is too large has been kept by a run whose images were larger before its crop.
        fits = all(m >= i for m, i in zip(shape, self.image_shape, strict=False))
        if len(shape) > 1 and (len(shape) != 3 or not fits):
            raise DataError(
                f"dataset {self.name!r}: a mean image of shape {shape} cannot be subtracted from "
                f"images of shape {self.image_shape}"
            )

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the images in `splits`."""
        return next(iter(self.splits.values())).image_shape

    @property
    def streamed(self) -> bool:
        """Whether images are decoded as they are needed."""
        return isinstance(next(iter(self.splits.values())), StreamedSplit)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of what the network is given."""
        height, width, channels = self.stored_shape
        side = self.crop_size
        return (height, width, channels) if side is None else (side, side, channels)

    @property
    def central_mean(self) -> Mean:
        """`mean` as evaluation subtracts it: of an image, the middle that `image_shape` leaves."""
        mean = np.asarray(self.mean, np.float64)
        return self.mean if mean.ndim == 1 else as_mean(centre(mean, *self.image_shape[:2]))

    @property
    def spec(self) -> DataSpec:
        return DataSpec(self.image_shape, self.num_classes, self.class_names)

    def split(self, name: str) -> Split | StreamedSplit:
        """The split of that name; a KeyError lists the names there are."""
        if name not in self.splits:
            raise DataError(
                f"dataset {self.name!r} has no split {name!r}, only {sorted(self.splits)}"
                + ("; set data.validation_size to hold one out" if name == "validation" else "")
            )
        return self.splits[name]


def identity(split: Split | StreamedSplit) -> dict[str, Any]:
    """Which examples a split has, in which order, as far as that is known without their pixels.

    Returns:
      "form" of what is stored, "examples" (of streamed data all that are stored, whatever part of
      them the split is), and a "digest": of names and labels of files, of the numbers of records
      of tfds, of the labels of what is held in memory.
    """
    if isinstance(split, Split):
        form, found = "in memory", digest(split.labels.astype("<i4").tobytes())
        return {"form": form, "examples": len(split), "digest": found}
    form, found = split.records.identity().split(" ")
    return {"form": form, "examples": len(split.records), "digest": found}


def pixels(split: Split) -> str:
    """Sixteen hexadecimal digits that tell the images of splits apart."""
    return hashlib.sha256(np.ascontiguousarray(split.images).data).hexdigest()[:16]


def as_mean(values: Any) -> Mean:
    """[C] or [H, W, C], as an array or as nested lists, as the tuples of a Dataset.

    Raises:
      ValueError: another number of axes, or lists of different lengths.
    """
    array = np.asarray(values, np.float64)
    if array.ndim == 1:
        return tuple(array.tolist())
    if array.ndim == 3:
        return tuple(tuple(tuple(pixel) for pixel in row) for row in array.tolist())
    raise DataError(f"a mean has shape [C] or [H, W, C], not {list(array.shape)}")


def centre(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle [..., height, width, C] of images [..., H, W, C]; an odd pixel goes at the end."""
    if images.shape[-3:-1] == (height, width):
        return images
    top, left = (images.shape[-3] - height) // 2, (images.shape[-2] - width) // 2
    return images[..., top : top + height, left : left + width, :]


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


def hold_out(split: AnySplit, size: int, seed: int) -> tuple[AnySplit, AnySplit]:
    """Divide a split in two: (the rest, a class-balanced part of `size` fixed by `seed`)."""
    held = balanced_indices(split.labels, size, seed)
    rest = np.setdiff1d(np.arange(len(split)), held, assume_unique=True)
    return split.take(rest), split.take(held)  # type: ignore[return-value]

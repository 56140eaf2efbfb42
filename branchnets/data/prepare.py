"""From a dataset as it was read to the one that a config asks for: subset, size, mean, crop.

Everything here is numpy on the host: no device, no file, no dataset by name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from branchnets.data.base import (
    Dataset,
    DataSpec,
    Mean,
    Split,
    as_mean,
    balanced_indices,
    centre,
    field,
    hold_out,
)
from branchnets.data.stored.records import StreamedSplit
from branchnets.errors import DataError


def prepare(dataset: Dataset, cfg: Any, only: Collection[str] | None = None) -> Dataset:
    """Apply the config's splitting and reshaping to a freshly read dataset.

    In this order: hold out `validation_size` of the training split, keep a class-balanced
    `train_size` of what is left (both fixed by `split_seed`), resize to `image_size`, pad to
    `pad_to`, take the mean image of what is now the training split (`per_pixel_mean`), and give
    the network crops of `crop_size`. The test split is never drawn from or added to. `mean` and
    `std` stand in for the dataset's own. Streamed images are only divided: they are brought to
    their size as they are decoded.

    Args:
      dataset: as read, with a "train" split if validation_size, train_size or per_pixel_mean is
        set.
      cfg: anything with those attributes; absent or None means "leave it".
      only: names of the splits that are wanted, as far as there are such; None = all.
    """
    divided = _divide(dataset, cfg)
    if only is not None:
        divided = {name: split for name, split in divided.items() if name in only}
    dataset = _with_statistics(dataset, cfg)
    if dataset.streamed:
        refuse_stored(dataset.name, cfg)
        return replace(dataset, splits=divided)
    splits = {name: part for name, part in divided.items() if isinstance(part, Split)}
    if (size := field(cfg, "image_size")) is not None:
        splits = {name: resize(split, int(size)) for name, split in splits.items()}
    if (size := field(cfg, "pad_to")) is not None:
        splits = {name: pad(split, int(size)) for name, split in splits.items()}
    dataset = replace(dataset, splits=splits)
    if field(cfg, "per_pixel_mean", False):
        train = dataset.split("train")
        assert isinstance(train, Split)
        dataset = replace(dataset, mean=mean_image(train.images))
    height, width, _ = dataset.stored_shape
    return replace(dataset, crop_size=_crop_size(cfg, height, width))


def _with_statistics(dataset: Dataset, cfg: Any) -> Dataset:
    """The dataset with the config's `mean` and `std` in place of its own."""
    mean, std = field(cfg, "mean"), field(cfg, "std")
    if mean is not None and field(cfg, "per_pixel_mean", False):
        raise DataError("data.mean and data.per_pixel_mean exclude each other; leave one empty")
    if std is not None and not all(s > 0 for s in std):
        raise DataError(f"data.std={tuple(std)} must be above 0")
    return replace(
        dataset,
        mean=dataset.mean if mean is None else as_mean(mean),
        std=dataset.std if std is None else tuple(map(float, std)),
    )


def refuse_stored(name: str, cfg: Any) -> None:
    """Raise a DataError for fields that need all images in memory."""
    for what in ("pad_to", "crop_size", "per_pixel_mean"):
        if field(cfg, what, False):
            raise DataError(
                f"data.{what} is for data sets held in memory, and {name!r} is streamed; leave it "
                "empty (augment.crop_area and eval.crop_fraction crop streamed images)"
            )


def _divide(dataset: Dataset, cfg: Any) -> dict[str, Split | StreamedSplit]:
    """The splits after holding out validation and taking the subset."""
    splits = dict(dataset.splits)
    seed = int(field(cfg, "split_seed", 0))
    sizes = divided_sizes({n: len(split) for n, split in splits.items()}, cfg, dataset.name)
    if "validation" in sizes.keys() - splits.keys():
        train, held = hold_out(dataset.split("train"), sizes["validation"], seed)
        splits["train"], splits["validation"] = train, held
    if field(cfg, "train_size") is not None:
        train = splits["train"]
        splits["train"] = train.take(balanced_indices(train.labels, sizes["train"], seed))
    return splits


def divided_sizes(sizes: Mapping[str, int], cfg: Any, name: str) -> dict[str, int]:
    """Examples of every split after holding out validation and taking the subset.

    Args:
      sizes: of the splits as they are read.
      cfg: `validation_size` and `train_size`, as of :func:`prepare`.
      name: of the dataset, for messages.

    Raises:
      DataError: a size that cannot be had.
    """
    sizes = dict(sizes)
    validation_size = int(field(cfg, "validation_size", 0))
    train_size = field(cfg, "train_size")
    if (validation_size or train_size is not None) and "train" not in sizes:
        raise DataError(f"dataset {name!r} has no split 'train', only {sorted(sizes)}")
    if validation_size:
        if "validation" in sizes:
            raise DataError(
                f"dataset {name!r} has a validation split of its own; "
                "leave data.validation_size empty"
            )
        if not 0 < validation_size < sizes["train"]:
            raise DataError(
                f"data.validation_size={validation_size} must lie between 0 and the "
                f"{sizes['train']} training examples of {name!r}"
            )
        sizes["train"] -= validation_size
        sizes["validation"] = validation_size
    if train_size is not None:
        if not 0 < train_size <= sizes["train"]:
            raise DataError(
                f"data.train_size={train_size} must lie between 1 and the {sizes['train']} "
                f"training examples of {name!r} (after holding out validation)"
            )
        sizes["train"] = int(train_size)
    return sizes


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


def framed(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Images [n, H, W, C] with zeros around them where they are smaller, else their middle."""
    around = surround(images, max(height, images.shape[1]), max(width, images.shape[2]))
    return centre(around, height, width)


def mean_image(images: np.ndarray) -> Mean:
    """The mean of uint8 images [n, H, W, C], from 0 to 1; the same on every machine.

    "Per-pixel mean": Krizhevsky et al. 2012, section 2. From whole-number sums.
    """
    return as_mean(images.sum(axis=0, dtype=np.int64) / (255 * len(images)))


def reshaped(spec: DataSpec, cfg: Any, cropped: bool = True) -> DataSpec:
    """The DataSpec after the config's sizes; no image is looked at.

    Args:
      spec: of the dataset as it would be read.
      cfg: `image_size`, and, where `cropped`, `pad_to` and `crop_size`.
      cropped: False for the images themselves, before they are padded or cropped.
    """
    height, width, channels = spec.image_shape
    if (size := field(cfg, "image_size")) is not None:
        height = width = int(size)
    if cropped and (size := field(cfg, "pad_to")) is not None:
        height = width = int(size)
    if cropped and (size := _crop_size(cfg, height, width)) is not None:
        height = width = size
    return replace(spec, image_shape=(height, width, channels))


def _crop_size(cfg: Any, height: int, width: int) -> int | None:
    """`crop_size`, if stored images of this size can be cropped to it."""
    size, padded = field(cfg, "crop_size"), field(cfg, "pad_to")
    if size is None:
        return None
    if padded is not None:
        raise DataError(
            f"data.crop_size={size} cuts images and data.pad_to={padded} enlarges them; set one "
            "of the two (zeros around a random crop are augment.crop_padding)"
        )
    if not 0 < size <= min(height, width):
        raise DataError(
            f"data.crop_size={size} must lie between 1 and the side of the {height}x{width} "
            "images; data.image_size resizes them"
        )
    return int(size)

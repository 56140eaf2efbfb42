"""The datasets by name. To add one: a module in `sets/`, and a line in DATASETS."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from branchnets.data.base import Dataset, DataSpec, field
from branchnets.data.prepare import prepare, reshaped
from branchnets.data.sets import (
    birds,
    cifar,
    digits,
    fake,
    folder,
    imagenet,
    mini_imagenet,
    tfds_any,
)
from branchnets.errors import DataError, unknown


@dataclasses.dataclass(frozen=True)
class Source:
    """How to get one dataset.

    Attributes:
      read: config -> Dataset with the splits as published.
      spec: config -> DataSpec of those splits, without reading their images.
      streams: whether its images are decoded as they are needed where `stream` is empty.
      examples: split -> how many, of a set as it is published; empty: only reading it tells.
    """

    read: Callable[[Any], Dataset]
    spec: Callable[[Any], DataSpec]
    streams: bool = False
    examples: Mapping[str, int] = dataclasses.field(default_factory=dict)


DATASETS: dict[str, Source] = {
    "digits": Source(digits.read, digits.spec),
    **{
        name: Source(partial(cifar.read, name), partial(cifar.spec, name), examples=cifar.EXAMPLES)
        for name in ("cifar10", "cifar100")
    },
    "imagenet2012": Source(imagenet.read, imagenet.spec, True, imagenet.EXAMPLES),
    "caltech_birds2011": Source(birds.read, birds.spec, True, birds.EXAMPLES),
    "mini_imagenet": Source(mini_imagenet.read, mini_imagenet.spec, False, mini_imagenet.EXAMPLES),
    "folder": Source(folder.read, folder.spec),
    "fake": Source(fake.read, fake.spec),
}


#: Before the name of any image-classification set that tfds has prepared.
TFDS = "tfds/"


def source(name: str) -> Source:
    """The source of that name; a ValueError lists the names there are."""
    if str(name).startswith(TFDS) and name != TFDS:
        own = name.removeprefix(TFDS)
        return Source(partial(tfds_any.read, own), partial(tfds_any.spec, own), streams=True)
    if name not in DATASETS:
        raise unknown("dataset", name, [*DATASETS, f"{TFDS}NAME"])
    return DATASETS[name]


def streams(cfg: Any) -> bool:
    """Whether `cfg` (see :func:`load`) has images decoded as they are needed."""
    return bool(field(cfg, "stream", source(field(cfg, "name")).streams))


def load(cfg: Any, only: Collection[str] | None = None) -> Dataset:
    """Read a dataset, hold out validation, take the subset and fix sizes, as `cfg` says.

    Args:
      cfg: the config's `data` section, or anything with such attributes: `name`, and optionally
        `data_dir`, `label`, `validation_size`, `train_size`, `split_seed`, `image_size`,
        `pad_to`, `crop_size`, `per_pixel_mean`, `mean`, `std`, `stream`, `num_classes`,
        `fake_size` (absent or None = the dataset's own default).
      only: names of the splits that are wanted; None = all.

    Returns:
      A Dataset in host memory, or one that is streamed.

    Raises:
      ValueError: an unknown name, an impossible size, or channels that the set does not have.
      DatasetNotFound: files are missing; the message has the command that prepares them.

    Example:
      >>> from types import SimpleNamespace
      >>> load(SimpleNamespace(name="digits", image_size=16)).image_shape
      (16, 16, 1)
    """
    own, channels = spec(None, cfg).image_shape[-1], field(cfg, "channels")
    if channels not in (None, own):
        raise DataError(
            f"data.channels={channels}: the images of {cfg.name} have {own}; leave it empty "
            f"(folder, fake and {TFDS}NAME take others)"
        )
    dataset = prepare(source(field(cfg, "name")).read(cfg), cfg, only)
    if field(cfg, "stream", False) and not dataset.streamed:
        raise DataError(
            f"{dataset.name} is always held in memory; leave data.stream empty, or set it to False"
        )
    return dataset


def spec(dataset: Dataset | None, cfg: Any) -> DataSpec:
    """Image shape and classes: of a loaded dataset, or of what `cfg` would load if it is None.

    The second form reads no images, and of published sets no file, so that a model can be described
    where the data is not; of `folder` it looks at names, of `tfds/NAME` at what tfds says of it.
    """
    if dataset is not None:
        return dataset.spec
    return reshaped(source(field(cfg, "name")).spec(cfg), cfg)


def content_shape(cfg: Any) -> tuple[int, int, int]:
    """(H, W, C) of the images of `cfg` themselves, before `pad_to` or `crop_size`."""
    return reshaped(source(field(cfg, "name")).spec(cfg), cfg, cropped=False).image_shape

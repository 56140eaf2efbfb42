"""Out-of-distribution images: another data set, or any folder of images."""

from __future__ import annotations

import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from branchnets.data.base import Split
from branchnets.data.images import fit, list_images, native_shape, open_image, refit, stack
from branchnets.data.registry import DATASETS, TFDS, load, streams
from branchnets.data.stored.held import hold
from branchnets.data.stored.records import StreamedSplit
from branchnets.errors import DataError, unknown
from branchnets.storage import AnyPath, as_path


def load_outside(
    name_or_path: str | os.PathLike[str],
    image_shape: tuple[int, int, int],
    data_dir: str | None = None,
    split: str = "test",
    content_shape: tuple[int, int, int] | None = None,
    flag: str | None = None,
) -> tuple[Split, list[str]]:
    """Images that a network was not trained on, in the shape that it takes.

    Args:
      name_or_path: a data set's name, else a folder, whose images are taken from all folders
        inside it.
      image_shape: (H, W, C) of the network's images.
      data_dir: where the data set is, as in ``data.data_dir``.
      split: of the data set.
      content_shape: (h, w, C) of the network's images without the zeros around them, where it was
        trained with ``data.pad_to``, or before their middle is taken, with ``data.crop_size`` or
        ``eval.crop_fraction``: these images are padded or cut in the same way.
      flag: of the command line that gives ``data_dir``, for messages.

    Returns:
      (split, notices): labels are 0, they mean nothing; each notice says what was done to the
      images so that they fit.

    Raises:
      DataError: neither a data set nor a folder, an empty one, or an image that cannot be read.
    """
    text = os.fspath(name_or_path)
    content = image_shape if content_shape is None else content_shape
    if (text in DATASETS or text.startswith(TFDS)) and text != "folder":
        config = SimpleNamespace(name=text, data_dir=data_dir, data_dir_flag=flag)
        if streams(config):
            config.image_size = content[0]
        found = load(config).split(split)
        if isinstance(found, StreamedSplit):
            found = hold(replace(found, image_shape=content), f"{text}, {split}")
        shapes: list[tuple[int, ...]] = [found.image_shape]
        images = refit(found.images, image_shape, content)
    else:
        paths, shapes = _paths(text), []

        def read(i: int) -> np.ndarray:
            image = open_image(paths[i])
            shapes.append(native_shape(image))  # in no order
            return fit(image, image_shape, content)

        images = stack(read, (len(paths), *image_shape))
    if not len(images):
        raise DataError(f"the out-of-distribution set {text} is empty")
    return Split(images, np.zeros(len(images), np.int32)), _notices(text, shapes, content)


def _paths(text: str) -> list[AnyPath]:
    if not as_path(text).is_dir():
        known = [*(name for name in DATASETS if name != "folder"), f"{TFDS}NAME"]
        raise unknown("data set (nor is it a folder of images)", text, known)
    paths = list_images(text)
    if not paths:
        raise DataError(f"the folder {text} has no images")
    return paths


def _notices(
    name: str, shapes: list[tuple[int, ...]], image_shape: tuple[int, int, int]
) -> list[str]:
    height, width, channels = image_shape
    notices = []
    sizes = sorted({shape[:2] for shape in shapes if shape[:2] != (height, width)})
    if sizes:
        first = f"{sizes[0][0]}x{sizes[0][1]}"
        others = f" and {len(sizes) - 1:,} other sizes" if len(sizes) > 1 else ""
        notices.append(f"images of {name} are {first}{others}; resized to {height}x{width}.")
    given = {shape[2] for shape in shapes} - {channels}
    if given:
        words = {1: "grey", 3: "colour", 4: "colour with transparency"}
        kinds = " and ".join(words.get(c, f"{c}-channel") for c in sorted(given))
        target = words.get(channels, f"{channels}-channel")
        notices.append(f"{kinds} images of {name} were made {target}, as the network takes them.")
    return notices

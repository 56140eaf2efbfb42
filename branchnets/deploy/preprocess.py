"""From an image file to what a network takes."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from branchnets.data.base import Mean, as_mean
from branchnets.data.images import fit, native_shape, open_image
from branchnets.errors import DeployError

#: How an image of another size is made to fit; the only way this version knows.
RESIZE = "centre-crop-bilinear"
_RESIZE_TEXT = (
    "the largest centred part with the sides' ratio of content_shape is resized to it (bilinear, "
    "antialiased when shrinking); colour becomes grey by luma, grey becomes equal colours; zeros "
    "around it, where image_shape is larger, or its middle, where image_shape is smaller; then "
    "(pixel / 255 - mean) / std by channel, or by pixel and channel where mean is an image"
)


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What happens to an image before the network.

    Attributes:
      image_shape: (H, W, C) of the network's images.
      content_shape: (H, W, C) that a file is fitted to; where it is smaller than ``image_shape``,
        zeros surround it, as in training; where it is larger, its middle is taken.
      mean: [C] or [H, W, C], in units where a pixel runs from 0 to 1.
      std: by channel, in the same units.
    """

    image_shape: tuple[int, int, int]
    content_shape: tuple[int, int, int]
    mean: Mean
    std: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """For classifier.json."""
        return {**dataclasses.asdict(self), "resize": RESIZE, "in_words": _RESIZE_TEXT}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Preprocessing:
        """From classifier.json.

        Raises:
          DeployError: a way of resizing that this version does not know, or no such record.
        """
        try:
            if record["resize"] != RESIZE:
                raise DeployError(
                    f"images are to be resized by {record['resize']!r}, which this version does "
                    "not know. Upgrade branchnets."
                )
            height, width, channels = map(int, record["image_shape"])
            rows, columns, planes = map(int, record["content_shape"])
            mean, std = as_mean(record["mean"]), tuple(map(float, record["std"]))
        except (LookupError, TypeError, ValueError) as error:
            if isinstance(error, DeployError):
                raise
            raise DeployError(f"classifier.json: preprocessing cannot be read: {error}") from error
        image_shape, content_shape = (height, width, channels), (rows, columns, planes)
        changes = {np.sign(c - i) for c, i in zip(content_shape, image_shape, strict=True)}
        framed = changes <= {0, 1} or changes <= {0, -1}  # cut or surrounded, not both
        fits = np.shape(mean) in ((channels,), image_shape) and len(std) == channels
        if min(content_shape) < 1 or not framed or planes != channels or not fits or 0 in std:
            raise DeployError(
                f"classifier.json: images of {content_shape}, a mean of shape {np.shape(mean)} and "
                f"std {std} make no images of {image_shape} for the network"
            )
        return cls(image_shape, content_shape, mean, std)

    def read(self, path: str | os.PathLike[str]) -> tuple[np.ndarray, str]:
        """(uint8 [H, W, C], what was done to the image so that it fits, or "").

        Raises:
          DataError: it cannot be read; the message has its path.
        """
        image = open_image(path)
        native = native_shape(image)
        return fit(image, self.image_shape, self.content_shape), self._notice(native)

    def _notice(self, native: tuple[int, int, int]) -> str:
        changes = []
        if native[:2] != self.content_shape[:2]:
            (h, w), (rows, columns) = native[:2], self.content_shape[:2]
            changes.append(f"resized from {h}x{w} to {rows}x{columns}")
        if native[2] != self.content_shape[2]:
            words = {1: "grey", 3: "colour", 4: "colour with transparency"}
            changes.append(f"{words[native[2]]} made {words[self.content_shape[2]]}")
        return ", ".join(changes)

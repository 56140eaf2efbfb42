"""Data as it is evaluated at another size than it was trained at."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from branchnets.data.base import Mean, as_mean
from branchnets.data.registry import content_shape, spec


def at_size(cfg: Any, size: int) -> Any:
    """The `data` section of a config whose images reach the network with another size.

    Where `pad_to` surrounds images or `crop_size` cuts them, the images themselves grow or shrink
    in proportion. Images are resized once, from how they are stored.

    Args:
      cfg: a ConfigDict; it is not changed.
      size: side in pixels of what the network is to be given.
    """
    given, content = spec(None, cfg).image_shape[0], content_shape(cfg)[0]
    changed = cfg.copy_and_resolve_references()
    framed = False
    for name in ("pad_to", "crop_size"):
        if cfg[name] is not None:
            changed[name], framed = size, True
    changed.image_size = round(content * size / given) if framed else size
    return changed


def resized_mean(mean: Mean, given: int, size: int) -> Mean:
    """A mean as it is subtracted at another size.

    Resizing is linear: the resized mean is the mean of the resized images.

    Args:
      mean: one number per channel, which stays, or an image.
      given: side of what the network was trained on.
      size: side of what it is given now.
    """
    array = np.asarray(mean, np.float64)
    if array.ndim == 1 or size == given:
        return mean
    height, width = (round(side * size / given) for side in array.shape[:2])
    planes = [
        Image.fromarray(np.float32(plane)).resize((width, height), Image.Resampling.BILINEAR)
        for plane in np.moveaxis(array, -1, 0)
    ]
    return as_mean(np.stack([np.asarray(plane) for plane in planes], axis=-1))

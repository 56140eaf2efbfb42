"""Mean and standard deviation of images: taken from their pixels, or the usual ones."""

from __future__ import annotations

import numpy as np

#: Of ImageNet's colours, pixels from 0 to 1: what is usual for photographs of any kind.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_CHUNK = 4096  # images


def usual(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """ImageNet's mean and standard deviation; their means where there are not three channels."""
    if channels == 3:
        return IMAGENET_MEAN, IMAGENET_STD
    mean, std = sum(IMAGENET_MEAN) / 3, sum(IMAGENET_STD) / 3
    return (mean,) * channels, (std,) * channels


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

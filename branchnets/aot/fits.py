"""The largest batch that the memory of a device allows."""

from __future__ import annotations

import math
from collections.abc import Callable

from ml_collections import ConfigDict


def unit(config: ConfigDict, devices: int, *, train: bool) -> int:
    """What a lawful batch is a multiple of: devices, groups of batch norm, parts, pairs.

    Args:
      config: of the run.
      devices: of the mesh.
      train: or for evaluation, which wants whole devices alone.
    """
    if not train:
        return devices
    mixed = config.augment.mixup > 0 or config.augment.cutmix > 0
    part = math.lcm(devices, config.bn_group_size or 1)
    return math.lcm(config.optimizer.accumulate_steps * part, 2 * devices if mixed else 1)


def largest(fits: Callable[[int], bool], least: int, most: int, guess: int | None = None) -> int:
    """The largest multiple of `least`, below `most`, that fits; 0 if none does.

    By bisection: what is larger than something that does not fit does not fit either.

    Args:
      fits: tells it of a batch size; slow.
      least: the smallest batch.
      most: a batch that does not fit.
      guess: a batch to try first.
    """
    low, high = 0, -(-most // least)
    middle = (low + high) // 2 if guess is None else min(max(guess // least, 1), high - 1)
    while high - low > 1:
        if fits(middle * least):
            low, tried = middle, middle + 1
        else:
            high, tried = middle, middle - 1
        # Beside a guess is where the answer should be; else halve.
        near = guess is not None and low < tried < high
        middle = tried if near else (low + high) // 2
        guess = None
    return low * least

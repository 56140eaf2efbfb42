"""Which examples a step sees, and its random numbers: pure functions of (seed, step, row).

None of them knows how many hosts or workers there are, so neither changes what is trained on. The
generator is numpy's legacy Mersenne Twister, whose stream is guaranteed not to change.
"""

from __future__ import annotations

import functools
import threading

import numpy as np

from branchnets.errors import DataError

# Set the streams of one seed apart.
_ORDER, _CROP = 0x6F726465, 0x63726F70
_WORD = 2**32
#: Orders of epochs that each process keeps.
KEPT_ORDERS = 3


class _Generator(threading.local):
    """One of each thread: seeding it anew takes a twelfth of what making another does."""

    def __init__(self) -> None:
        self.state = np.random.RandomState(0)


_generator = _Generator()


def _random(purpose: int, seed: int, a: int, b: int = 0) -> np.random.RandomState:
    """This thread's generator, seeded anew: draw from it at once."""
    words = [purpose, seed % _WORD, seed // _WORD % _WORD, a % _WORD, a // _WORD % _WORD, b % _WORD]
    state = _generator.state
    state.seed(np.array(words, np.uint32))
    return state


@functools.lru_cache(maxsize=KEPT_ORDERS)
def permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order of the examples 0..size-1 in an epoch, int64 [size]; read-only."""
    order = _random(_ORDER, seed, epoch).permutation(size)
    order.flags.writeable = False
    return order


def uniforms(seed: int, step: int, row: int, count: int) -> np.ndarray:
    """`count` numbers in [0, 1) for row `row` of the global batch of `step`, float64."""
    return _random(_CROP, seed, step, row).random_sample(count)


def place(step: int, row: int, batch_size: int, steps_per_epoch: int) -> tuple[int, int]:
    """(epoch, position in its permutation) of a row of the global batch of `step`."""
    epoch, within = divmod(step, steps_per_epoch)
    return epoch, within * batch_size + row


def host_rows(batch_size: int, process: int, processes: int) -> range:
    """The consecutive rows of the global batch that belong to a process.

    Raises:
      DataError: the number of processes does not divide the batch.
    """
    if batch_size % processes:
        raise DataError(f"a batch of {batch_size} does not divide over {processes} processes")
    local = batch_size // processes
    return range(process * local, (process + 1) * local)


def chunk_size(rows: int, largest: int) -> int:
    """The largest divisor of `rows` that is at most `largest`."""
    return next(size for size in range(min(rows, largest), 0, -1) if rows % size == 0)

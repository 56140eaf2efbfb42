"""Stored images as one array: decoded once, and kept in the cache directory."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from branchnets import memory
from branchnets.data.base import Split
from branchnets.data.images import fit, open_image, stack
from branchnets.data.stored.bars import bar
from branchnets.data.stored.cache import cached
from branchnets.data.stored.records import Records, StreamedSplit
from branchnets.errors import DataError

#: Bytes of decoded pixels that are still held in memory.
MAX_BYTES = 8 * 2**30

_LINE_SECONDS = 5


def hold(split: StreamedSplit, title: str) -> Split:
    """All images of a split, made to fit its shape (:func:`branchnets.data.images.fit`).

    Args:
      split: what is stored, and the shape.
      title: what the line of progress and messages call it.

    Raises:
      DataError: an image that cannot be read, or too many pixels.
    """
    shape = (len(split), *split.image_shape)
    check_fits(len(split), split.image_shape, title)

    def make() -> np.ndarray:
        def decode(i: int) -> np.ndarray:
            example = split[i]
            image = open_image(io.BytesIO(example.data), example.name)
            return fit(image, split.image_shape)

        def track(done: Iterable[Any]) -> Iterable[Any]:  # the last line says how long it took
            return bar(done, title, len(split), mininterval=_LINE_SECONDS)

        return stack(decode, shape, track)

    chosen = "all" if split.indices is None else hashlib.sha256(split.indices.tobytes()).hexdigest()
    what = f"1 {split.image_shape} {split.records.what} {chosen}"
    return Split(cached("held", split.records.files(), what, make), split.labels)


def as_splits(
    name: str,
    records: Mapping[str, Records],
    image_shape: tuple[int, int, int],
    streamed: bool,
) -> Mapping[str, Split | StreamedSplit]:
    """The splits of a data set: decoded when they are needed, or all held in memory.

    Args:
      name: of the data set, for messages.
      records: split -> what is stored.
      image_shape: (H, W, C) of what the network is given.
      streamed: which of the two; errors of the second are those of :func:`hold`.
    """
    streams = {split: StreamedSplit(found, image_shape) for split, found in records.items()}
    if streamed:
        return streams
    return {split: hold(stream, f"{name}, {split}") for split, stream in streams.items()}


def check_fits(count: int, image_shape: tuple[int, int, int], title: str) -> None:
    """Refuse `count` images of that shape where they would take too much memory."""
    needed, free = count * math.prod(image_shape), memory.host_free()
    if needed > MAX_BYTES:
        limit = f"more than {MAX_BYTES // 2**30} GiB of memory."
    elif free is not None and needed > free:
        limit = f"{needed / 1e6:.3g} MB, and {free / 1e6:.3g} MB of memory are free."
    else:
        return
    raise DataError(
        f"{title} has {count:,} images; at {image_shape} they take {limit} Set data.stream=True, "
        "or a smaller data.image_size."
    )

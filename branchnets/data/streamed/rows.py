"""What a worker computes: decoded rows of batches, in chunks, each a function of its number.

A fault of an example is data, not an exception: it reaches the trainer in its place in the order,
whatever worker met it. Everything here is on the host and picklable.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from branchnets.data.stored.records import Encoded, StreamedSplit
from branchnets.data.streamed import decode, order
from branchnets.errors import DataError, ExampleError

#: Rows that one worker decodes at a time, at most.
CHUNK = 16
#: So many examples in a row that cannot be used are no accident.
GIVE_UP = 100

#: Seconds before each further try to read what the machine or the network did not give.
_WAITS = (0.1, 1.0, 5.0)

Chunk = dict[str, Any]


@dataclass(frozen=True)
class Reading:
    """How examples become arrays.

    Attributes:
      split: the examples.
      image_shape: (H, W, C) of what they become.
      num_classes: K; labels are 0..K-1.
      decoder: "opencv" or "pillow".
      skip: whether an example that cannot be used is passed over; else it is an error.
    """

    split: StreamedSplit
    image_shape: tuple[int, int, int]
    num_classes: int
    decoder: str
    skip: bool

    def __call__(self, index: int, choose: decode.Choose) -> tuple[np.ndarray, int]:
        """(image, label) of an example.

        Raises:
          ExampleError: it cannot be used; the message names it.
          DataError: the machine or the network does not let it be read, tried again and again.
        """
        example = self._read(index)
        if not 0 <= example.label < self.num_classes:
            raise ExampleError(
                f"{example.name}: label {example.label} is outside the {self.num_classes} classes "
                f"0..{self.num_classes - 1}"
            )
        try:
            pixels = decode.decode(example.data, self.image_shape, choose, self.decoder)
        except DataError as error:
            raise ExampleError(f"{example.name}: {error}") from error
        except MemoryError as error:
            raise DataError(f"{example.name}: too little memory to decode it") from error
        return pixels, example.label

    def _read(self, index: int) -> Encoded:
        for wait in (*_WAITS, None):
            try:
                return self.split[index]
            except ExampleError:
                raise
            except FileNotFoundError as error:
                raise ExampleError(f"example {index} cannot be read: {error}") from error
            except Exception as error:  # a file system or a network
                if wait is None:
                    text = error if isinstance(error, DataError) else f"example {index}: {error!r}"
                    raise DataError(f"{text} (tried {len(_WAITS) + 1} times)") from error
                time.sleep(wait)
        raise AssertionError("the last turn returns or raises")

    def empty(self, rows: int) -> Chunk:
        """A chunk of nothing: zero images, label 0, all `ok` False."""
        return {
            "image": np.zeros((rows, *self.image_shape), np.uint8),
            "label": np.zeros(rows, np.int32),
            "ok": np.zeros(rows, bool),
            "faults": (),
            "error": "",
        }


class Part(NamedTuple):
    """Which rows of every global batch a process decodes.

    Attributes:
      batch_size: B, of the global batch.
      process: which of `processes`.
      processes: H; a divisor of B.
    """

    batch_size: int
    process: int = 0
    processes: int = 1

    @property
    def rows(self) -> range:
        return order.host_rows(self.batch_size, self.process, self.processes)

    @property
    def chunk(self) -> int:
        """Rows of one chunk."""
        return order.chunk_size(len(self.rows), CHUNK)

    @property
    def chunks(self) -> int:
        """Chunks of one batch."""
        return len(self.rows) // self.chunk

    def locate(self, number: int) -> tuple[int, range]:
        """(batch, rows of the global batch) of chunk `number`, counted from batch 0 on."""
        batch, within = divmod(number, self.chunks)
        first = self.rows.start + within * self.chunk
        return batch, range(first, first + self.chunk)


@dataclass(frozen=True)
class TrainRows:
    """Training examples in the order of (seed, epoch), cropped by (seed, step, row).

    `rows[number]` is a chunk: "image" uint8 [c, H, W, C], "label" int32 [c], "ok" bool [c] (False
    where another example stands for one that cannot be used), "faults" (a message for each of
    those), and "error" ("" or why training must stop).

    Attributes:
      reading: how.
      part: which rows.
      seed: of order and crops.
      crop: (area, ratio) of :func:`branchnets.data.streamed.decode.random_crop`; None: the middle.
    """

    reading: Reading
    part: Part
    seed: int
    crop: tuple[tuple[float, float], tuple[float, float]] | None

    @property
    def steps_per_epoch(self) -> int:
        return len(self.reading.split) // self.part.batch_size

    def __len__(self) -> int:
        return 2**62  # training does not run out of epochs

    def __getitem__(self, number: int) -> Chunk:
        step, rows = self.part.locate(number)
        chunk = self.reading.empty(len(rows))
        for i, row in enumerate(rows):
            try:
                faults = self._row(step, row, chunk, i)
            except DataError as error:
                chunk["error"] = str(error)
                break
            chunk["ok"][i] = not faults
            chunk["faults"] += faults
            if faults and (not self.reading.skip or len(faults) >= GIVE_UP):
                chunk["error"] = _why(faults, self.reading.skip)
                break
        return chunk

    def _row(self, step: int, row: int, chunk: Chunk, i: int) -> tuple[str, ...]:
        """Fills row i of the chunk; the faults of examples that were passed over."""
        reading, size = self.reading, len(self.reading.split)
        epoch, start = order.place(step, row, self.part.batch_size, self.steps_per_epoch)
        indices = order.permutation(self.seed, epoch, size)
        faults: list[str] = []
        choose = self._choose(step, row)
        for further in range(GIVE_UP if reading.skip else 1):
            try:
                index = int(indices[(start + further) % size])
                chunk["image"][i], chunk["label"][i] = reading(index, choose)
                break
            except ExampleError as error:
                faults.append(str(error))
        return tuple(faults)

    def _choose(self, step: int, row: int) -> decode.Choose:
        if self.crop is None:
            return functools.partial(decode.centre_crop, size=self.reading.image_shape[:2])
        draws = order.uniforms(self.seed, step, row, decode.DRAWS)
        area, ratio = self.crop
        return functools.partial(decode.random_crop, area=area, ratio=ratio, draws=draws)


@dataclass(frozen=True)
class EvalRows:
    """Examples in order, their middle; the last batch is filled up with zero images.

    Chunks are as :class:`TrainRows`'; "ok" is False for padding and for what cannot be used.

    Attributes:
      reading: how.
      part: which rows.
      crop_fraction: of :func:`branchnets.data.streamed.decode.centre_crop`.
    """

    reading: Reading
    part: Part
    crop_fraction: float

    @property
    def batches(self) -> int:
        return -(-len(self.reading.split) // self.part.batch_size)

    def __len__(self) -> int:
        return self.batches * self.part.chunks

    def __getitem__(self, number: int) -> Chunk:
        batch, rows = self.part.locate(number)
        chunk = self.reading.empty(len(rows))
        choose = functools.partial(
            decode.centre_crop,
            size=self.reading.image_shape[:2],
            fraction=self.crop_fraction,
        )
        for i, row in enumerate(rows):
            index = batch * self.part.batch_size + row
            if index >= len(self.reading.split):
                break
            try:
                chunk["image"][i], chunk["label"][i] = self.reading(index, choose)
                chunk["ok"][i] = True
            except ExampleError as error:
                chunk["faults"] += (str(error),)
                if not self.reading.skip:
                    chunk["error"] = _why(chunk["faults"], skip=False)
                    break
            except DataError as error:
                chunk["error"] = str(error)
                break
        return chunk


def _why(faults: tuple[str, ...], skip: bool) -> str:
    if skip:
        return f"{len(faults)} examples in a row cannot be used. The last one is {faults[-1]}"
    return (
        f"{faults[0]}. Mend or remove it, or set data.on_error=skip, which passes over such "
        "examples and counts them"
    )

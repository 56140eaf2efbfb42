"""Datasets that are decoded as they are needed, by worker processes or threads.

`StreamedInput` feeds training (decoded and cropped on the host, the rest of the augmentation
inside the jitted step), `StreamedEval` evaluation.
"""

from __future__ import annotations

import math
import queue
import sys
import threading
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from branchnets.data.base import Dataset, check_labels
from branchnets.data.device.finish import Finish, central_normalizer
from branchnets.data.device.placement import (
    EVERYWHERE,
    SPREAD,
    check_batch_size,
    put,
    put_local,
    shaped,
)
from branchnets.data.streamed.rows import Chunk, EvalRows, TrainRows
from branchnets.data.streamed.workers import Chunks, drain, hand_on, memory, shared_memory
from branchnets.errors import DataError

#: Batches that lie on the devices before they are needed.
AHEAD = 2

Batch = dict[str, Any]


_told: set[str] = set()


def _tell(faults: Iterable[str]) -> None:
    """Names each fault once, on stderr, whatever inputs of this process meet it."""
    for fault in faults:
        if fault not in _told:
            _told.add(fault)
            print(f"Passed over: {fault}", file=sys.stderr, flush=True)


def host_batches(chunks: Iterable[Chunk], per_batch: int) -> Iterator[Batch]:
    """Puts `per_batch` consecutive chunks at a time together: the rows of one process.

    Yields:
      "image" uint8 [b, H, W, C], "label" int32 [b], "ok" bool [b], and "faults", the messages.

    Raises:
      DataError: a chunk that says why it must stop; the batches before it were given out.
    """
    batch: Batch = {}
    for number, chunk in enumerate(chunks):
        if chunk["error"]:
            raise DataError(chunk["error"])
        within, rows = number % per_batch, len(chunk["label"])
        if within == 0:
            batch = {"faults": ()}
            for name in ("image", "label", "ok"):
                array = chunk[name]
                batch[name] = np.empty((per_batch * rows, *array.shape[1:]), array.dtype)
        for name in ("image", "label", "ok"):
            batch[name][within * rows : (within + 1) * rows] = chunk[name]
        batch["faults"] += chunk["faults"]
        del chunk  # before the next one is waited for: it may be shared memory
        if within == per_batch - 1:
            yield batch


class _Feed:
    """Batches from one step on, put on the devices by a thread ahead of time."""

    def __init__(self, rows: TrainRows, step: int, workers: int, mesh: Mesh | None) -> None:
        self.step = step
        self.failures: list[Exception] = []
        self._ready: queue.Queue[Batch | Exception] = queue.Queue(maxsize=AHEAD)
        stop = threading.Event()
        chunks = Chunks(rows, step * rows.part.chunks, workers)
        arguments = (chunks, rows.part.chunks, mesh, self._ready, stop, self.failures)
        thread = threading.Thread(target=_feed, args=arguments, daemon=True)
        # Of this object, which the thread does not hold: one that is dropped ends as well.
        self._finalizer = weakref.finalize(self, _end, chunks, self._ready, stop, thread)
        thread.start()

    def __next__(self) -> Batch:
        item = self._ready.get()
        if isinstance(item, Exception):
            self._ready.put(item)  # for whoever asks again
            raise item
        self.step += 1
        return item

    def close(self) -> None:
        self._finalizer()


def _end(
    chunks: Chunks, ready: queue.Queue, stop: threading.Event, thread: threading.Thread
) -> None:
    stop.set()
    chunks.close()
    thread.join(10.0)
    drain(ready)


def _feed(
    chunks: Chunks,
    per_batch: int,
    mesh: Mesh | None,
    ready: queue.Queue,
    stop: threading.Event,
    failures: list[Exception],
) -> None:
    try:
        for batch in host_batches(chunks, per_batch):
            images, labels = (put_local(batch[name], mesh) for name in ("image", "label"))
            skipped = int((~batch["ok"]).sum())
            faults = batch["faults"]
            item = {"images": images, "labels": labels, "skipped": skipped, "faults": faults}
            if not hand_on(item, ready, stop):
                return
            del batch, images, labels, item
    except Exception as error:
        failures.append(error)  # known before the batches that lie ready are used up
        hand_on(error, ready, stop)


class StreamedBatches:
    """What a step makes of a batch of a streamed training split, which need not be here.

    Args:
      examples: of the split.
      image_shape: (H, W, C) of what is decoded.
      batch_size: B, of the whole mesh.
      finish: the part of it that is done on the device.
      mesh: as for :class:`StreamedInput`.

    Raises:
      DataError: the mesh does not divide B, or the split is smaller than B.
    """

    def __init__(
        self,
        examples: int,
        image_shape: tuple[int, int, int],
        batch_size: int,
        finish: Finish,
        mesh: Mesh | None = None,
    ) -> None:
        check_batch_size(batch_size, mesh)
        if examples < batch_size:
            raise DataError(
                f"the training split has {examples} examples, fewer than one batch "
                f"of {batch_size}; lower batch_size or raise data.train_size"
            )
        self.batch_size = batch_size
        self.steps_per_epoch = examples // batch_size
        self._image_shape, self._finish, self._mesh = image_shape, finish, mesh

    def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes, dtypes and shardings of :meth:`StreamedInput.arrays`."""
        images = ((self.batch_size, *self._image_shape), np.uint8)
        return {
            "images": shaped(*images, self._mesh, SPREAD),
            "labels": shaped((self.batch_size,), np.int32, self._mesh, SPREAD),
            "key": shaped((2,), np.uint32, self._mesh, EVERYWHERE),
        }

    def batch(
        self, arrays: dict[str, jax.Array], step: jax.Array, key: jax.Array
    ) -> dict[str, jax.Array]:
        """Augment and normalise; pure, to be traced.

        See :class:`branchnets.data.device.finish.Finish`.

        Args:
          arrays: from `arrays(step)`.
          step: not used.
          key: random key of this step's augmentation.
        """
        del step
        return self._finish(key, arrays["images"], arrays["labels"])


class StreamedInput(StreamedBatches):
    """A streamed training split, in a fresh order every epoch.

    An epoch visits `steps_per_epoch * batch_size` distinct examples; the remainder of its
    permutation is dropped. Order and crops are functions of (seed, step, row), so neither a
    restart nor the number of devices, hosts or workers changes them; asking for any step is
    immediate but for the start of the workers.

    Use: `arrays(step)` on the host, passed as an argument into the jitted step, which calls
    `batch(arrays, step, key)`. Workers start with the first step that is asked for.

    Args:
      rows: what this process decodes.
      finish: the part of it that is done on the device.
      workers: processes that decode; 0 = threads.
      mesh: a mesh with an axis "data", over which the batch is spread; its devices are in the order
        of processes. None = the default device.

    Attributes:
      decoder: which decoder is used.
      unreadable: examples of this process that others stood for, up to the last step given out.

    Raises:
      DataError: the mesh does not divide B, or the split is smaller than B. From `arrays`: an
        example that cannot be used (`data.on_error`), or workers that die again and again.
    """

    def __init__(
        self, rows: TrainRows, finish: Finish, workers: int, mesh: Mesh | None = None
    ) -> None:
        reading = rows.reading
        super().__init__(
            len(reading.split), reading.image_shape, rows.part.batch_size, finish, mesh
        )
        self.decoder: str | None = rows.reading.decoder
        self.unreadable = 0
        self._rows, self._workers = rows, workers
        key = np.asarray(jax.random.key_data(jax.random.key(rows.seed)))
        self._key = put(key, mesh, EVERYWHERE)
        self._feed: _Feed | None = None
        self._step, self._arrays = -1, {"key": self._key}

    @property
    def failure(self) -> Exception | None:
        """What `arrays` of a step to come will raise, where it is known before."""
        return self._feed.failures[0] if self._feed is not None and self._feed.failures else None

    @property
    def host_bytes(self) -> int:
        """Memory of this host that workers and the images in waiting take, about."""
        examples = len(self._rows.reading.split)
        own = memory(self._workers, self._chunk_bytes, self._rows, examples)
        return own + (AHEAD + 1) * self._rows.part.chunks * self._chunk_bytes

    @property
    def shared_bytes(self) -> int:
        """Shared memory of this host that images on their way from workers take, about."""
        return shared_memory(self._workers, self._chunk_bytes)

    @property
    def _chunk_bytes(self) -> int:
        return self._rows.part.chunk * math.prod(self._rows.reading.image_shape)

    def arrays(self, step: int) -> dict[str, jax.Array]:
        """The device arrays of `step`: quick where steps are asked for one after the other.

        Args:
          step: global training step from 0, a Python integer.

        Returns:
          "images" uint8 [B, H, W, C] and "labels" int32 [B], spread over the mesh, and "key" uint32
          [2] (the seed's).
        """
        step = int(step)
        if step == self._step:
            return self._arrays
        if self._feed is None or self._feed.step != step:
            self.close()
            self._feed = _Feed(self._rows, step, self._workers, self._mesh)
        batch = next(self._feed)
        self.unreadable += batch["skipped"]
        _tell(batch["faults"])
        arrays = {"images": batch["images"], "labels": batch["labels"], "key": self._key}
        self._step, self._arrays = step, arrays
        return arrays

    def close(self) -> None:
        """Ends threads and processes, and lets go of the batches that lie ready."""
        if self._feed is not None:
            self._feed.close()
        self._feed = None
        self._step, self._arrays = -1, {"key": self._key}


class StreamedEval:
    """A streamed split in fixed-size batches, in order, each example exactly once.

    Iterating yields what :class:`branchnets.data.device.resident.EvalInput` does; "mask" is 0 for
    padding and for an example that cannot be used (`data.on_error="skip"`), which is a zero image
    of label 0. It can be iterated again and again; every time starts its own workers.

    Args:
      rows: what this process decodes.
      dataset: gives mean and std.
      workers: processes that decode; 0 = threads.
      mesh: as for StreamedInput.

    Attributes:
      unreadable: examples of this process that the last iteration passed over.

    Raises:
      DataError: the mesh does not divide B, or the split is empty. While iterating: an example that
        cannot be used (`data.on_error="stop"`), none that can, or workers that die again and again.
    """

    def __init__(
        self, rows: EvalRows, dataset: Dataset, workers: int, mesh: Mesh | None = None
    ) -> None:
        self.batch_size = rows.part.batch_size
        check_batch_size(self.batch_size, mesh, "eval.batch_size")
        self.num_examples = len(rows.reading.split)
        if not self.num_examples:
            raise DataError(f"a split of {dataset.name!r} to be evaluated is empty")
        self.unreadable = 0
        self._rows, self._workers, self._mesh = rows, workers, mesh
        self._normalize = central_normalizer(dataset, mesh)

    @property
    def labels(self) -> np.ndarray:
        """int32 [n], in order, on the host."""
        reading = self._rows.reading
        labels = reading.split.labels
        if not reading.skip:
            check_labels(labels, reading.num_classes, "the split")
        return labels

    def __len__(self) -> int:
        return self._rows.batches

    def __iter__(self) -> Iterator[dict[str, jax.Array]]:
        self.unreadable, used = 0, 0
        chunks = Chunks(self._rows, 0, self._workers)
        try:
            for batch in host_batches(chunks, self._rows.part.chunks):
                self.unreadable += len(batch["faults"])
                used += int(batch["ok"].sum())
                _tell(batch["faults"])
                yield {
                    "image": self._normalize(put_local(batch["image"], self._mesh)),
                    "label": put_local(batch["label"], self._mesh),
                    "mask": put_local(batch["ok"].astype(np.float32), self._mesh),
                }
            if self.unreadable and not used:
                raise DataError(f"none of the {self.unreadable} examples can be used")
        finally:
            chunks.close()

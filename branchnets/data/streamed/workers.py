"""Chunks of rows computed ahead of time, by grain: in worker processes, or in threads.

Chunk j is computed by lane j mod n of n lanes; a lane is one worker process (or, without workers,
the threads of this process) and the thread that looks after it. What comes out is the same for any
number of lanes. A process that dies is started again at the chunk that is missing.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from multiprocessing import parent_process, resource_tracker
from multiprocessing.util import Finalize
from typing import Any, Protocol

import numpy as np
from absl import flags

from branchnets.data.base import field
from branchnets.data.streamed.order import KEPT_ORDERS
from branchnets.data.streamed.rows import Chunk
from branchnets.errors import DataError

#: How often the dead processes of one input are replaced.
RESTARTS = 3
_MOST = 32  # worker processes, unless the config asks for more
_THREADS = 2  # of one worker process: one reads while the other decodes
_PROCESS_BYTES = 230 * 2**20  # of one worker process with its libraries, measured
_READY = 2  # chunks that a lane has ready, here and at each end of what lies between processes
_SHARED = _READY + 2  # chunks of a lane in shared memory: ready ones, one made, and one taken
_STOPPING = 60.0  # seconds that closing waits for a worker's last chunk


class Rows(Protocol):
    """Chunks by number; picklable."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Chunk: ...


def num_cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def num_workers(cfg: Any) -> int:
    """Worker processes of an input: `data.workers`, or by the cores; 0 = threads.

    Args:
      cfg: a config's `data` section.
    """
    cores = num_cores()
    by_cores = min(cores - 1, _MOST) if cores > 2 else 0
    return int(field(cfg, "workers", by_cores))


def memory(workers: int, chunk_bytes: int, rows: Rows, examples: int) -> int:
    """Bytes of host memory that training's workers and the chunks in them take, about.

    The processes are counted twice: while there is an evaluation, its own run beside training's,
    which wait. Each holds the records, and they lie here once more while it is started.

    Args:
      workers: processes; 0 = threads of this one.
      chunk_bytes: of one chunk.
      rows: what is computed.
      examples: of the training split, whose order is kept.
    """
    orders = KEPT_ORDERS * examples * np.dtype(np.int64).itemsize
    if not workers:
        return (_READY + 1) * num_cores() * chunk_bytes + _READY * chunk_bytes + orders
    chunks = 2 * _READY + (_READY + 1) * _THREADS
    records = len(pickle.dumps(rows))
    return workers * (2 * _PROCESS_BYTES + 2 * records + orders + chunks * chunk_bytes)


def shared_memory(workers: int, chunk_bytes: int) -> int:
    """Bytes of shared memory that lie between the workers and this process, at most, about.

    Args:
      workers: processes; 0 = threads of this one, which need none.
      chunk_bytes: of one chunk.
    """
    return 2 * workers * _SHARED * chunk_bytes  # evaluation's workers besides


class _Lane:
    """Every n-th chunk, computed ahead by one worker process or by threads; see `Chunks`."""

    def __init__(self, rows: Rows, first: int, stride: int, processes: bool) -> None:
        self.rows, self.next, self.stride, self.processes = rows, first, stride, processes
        self.ready: queue.Queue[Chunk | Exception | None] = queue.Queue(maxsize=_READY)
        self.stop = threading.Event()

    def run(self, died: Callable[[str], DataError | None]) -> None:
        """The lane's thread; ends after an exception, the last chunk (None) or `stop`."""
        # What starts here, processes too, inherits this: Ctrl-C and a scheduler's signal reach the
        # workers as well as the trainer, which alone decides when they end.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        while not self.stop.is_set():
            iterator: Any = None
            try:
                iterator = self._start()  # may fail: no more processes, files or memory
                for chunk in iterator:
                    self.next += self.stride
                    # Shared memory is freed at once, and none is left when the lane ends.
                    image = chunk["image"]
                    own = {**chunk, "image": np.array(image) if self.processes else image}
                    del chunk, image
                    if not self._put(own):
                        break
                else:
                    self._put(None)
                return
            except Exception as error:
                if not (self.processes and "terminated unexpectedly" in str(error)):
                    self._put(_explained(error, self.processes))
                    return
                if failure := died(str(error)):
                    self._put(failure)
                    return
            finally:
                if iterator is not None:
                    iterator.close()
                del iterator

    def _start(self) -> Any:
        import grain

        if not flags.FLAGS.is_parsed():  # grain reads its own flags, which have their defaults
            flags.FLAGS.mark_as_parsed()
        threads = _THREADS if self.processes else num_cores()
        left: Any = _Strided(self.rows, self.next, self.stride)
        chunks: Any = grain.MapDataset.source(left).to_iter_dataset(
            grain.ReadOptions(num_threads=threads, prefetch_buffer_size=_READY * threads)
        )
        if self.processes:
            options = grain.MultiprocessingOptions(num_workers=1, per_worker_buffer_size=_READY)
            large_ones = grain.experimental.DatasetOptions(min_shm_size=2**12)
            chunks = grain.experimental.WithOptionsIterDataset(chunks, large_ones)
            chunks = chunks.mp_prefetch(options, worker_init_fn=_begin)
        return iter(chunks)

    def take(self) -> Chunk | Exception | None:
        """The next chunk, an exception in its place, or None at the end."""
        while True:
            try:
                return self.ready.get(timeout=0.2)
            except queue.Empty:
                if self.stop.is_set():
                    return None

    def _put(self, item: Chunk | Exception | None) -> bool:
        return hand_on(item, self.ready, self.stop)


def hand_on(item: Any, ready: queue.Queue, stop: threading.Event) -> bool:
    """Puts an item into a queue as soon as there is room; False where `stop` comes first."""
    while not stop.is_set():
        try:
            ready.put(item, timeout=0.1)
            return True
        except queue.Full:
            pass
    return False


def drain(ready: queue.Queue) -> None:
    """Lets go of what lies in a queue that nobody fills any more."""
    while not ready.empty():
        ready.get_nowait()


def _explained(error: Exception, processes: bool) -> Exception:
    """What a machine lacks is an error of the input, which the trainer knows what to do with."""
    if not isinstance(error, OSError | MemoryError):
        return error
    advice = "set fewer data.workers, or 0 for threads" if processes else "free some of it"
    return DataError(f"the machine has no more for input ({error or 'memory'}); {advice}")


class _Strided:
    """Every n-th chunk from the first one that is missing; what is sent to a worker process."""

    def __init__(self, rows: Rows, first: int, stride: int) -> None:
        self._rows, self._first, self._stride = rows, first, stride

    def __len__(self) -> int:
        return max(-(-(len(self._rows) - self._first) // self._stride), 0)

    def __getitem__(self, i: int) -> Chunk:
        return self._rows[self._first + i * self._stride]

    def __repr__(self) -> str:
        return "chunks"


def _begin(index: int, count: int) -> None:
    """In a worker process: end with the trainer, also when that is killed; and end quickly."""
    del index, count
    parent = parent_process()

    def watch() -> None:
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    # The last thing that multiprocessing does; taking the modules apart would need half a second.
    Finalize(None, os._exit, args=(0,), exitpriority=-100)


_WHY = {
    "-9": "killed, perhaps for want of memory",
    "-7": "bus error, perhaps because shared memory, /dev/shm, is full; give a container more, as "
    "docker run --shm-size=1g does",
    "1": "see above; a script that trains must do so under `if __name__ == '__main__':`",
}


class _Deaths:
    """Counts worker processes that died, and says so."""

    def __init__(self, allowed: int) -> None:
        self._allowed, self._count, self._lock = allowed, 0, threading.Lock()

    def __call__(self, message: str) -> DataError | None:
        """None if the process is to be replaced, else why not.

        Args:
          message: grain's, with the exit code.
        """
        code = message.partition("exit code ")[2].partition(".")[0]
        why = _WHY.get(code, "see above")
        with self._lock:
            self._count += 1
            count = self._count
        if count > self._allowed:
            return DataError(
                f"{count} worker processes that decode images died (the last with exit code "
                f"{code}: {why}); set fewer data.workers, or 0 for threads"
            )
        print(
            f"A worker process that decodes images died (exit code {code}: {why}); another takes "
            f"its place ({count} of at most {self._allowed}).",
            file=sys.stderr,
            flush=True,
        )
        return None


class Chunks:
    """The chunks of `rows` from `first` on, in order, computed ahead.

    Args:
      rows: what is computed.
      first: number of the first chunk.
      workers: processes; 0 = threads of this one.
      restarts: how many processes that die are replaced.

    Use: iterate once; `close` when done, also after an exception.

    Raises (while iterating):
      DataError: more processes died than are replaced.
    """

    def __init__(
        self, rows: Rows, first: int = 0, workers: int = 0, restarts: int = RESTARTS
    ) -> None:
        count = max(workers, 1)
        if workers:
            # Before a thread that blocks signals needs it: it would unblock them.
            resource_tracker.ensure_running()
        self._lanes = [_Lane(rows, first + i, count, workers > 0) for i in range(count)]
        deaths = _Deaths(restarts)
        self._threads = [
            threading.Thread(target=lane.run, args=(deaths,), daemon=True) for lane in self._lanes
        ]
        self._finalizer = weakref.finalize(self, _close, self._lanes, self._threads)
        for thread in self._threads:
            thread.start()

    def __iter__(self) -> Iterator[Chunk]:
        turn = 0
        while True:
            item = self._lanes[turn].take()
            if isinstance(item, Exception):
                raise item
            if item is None:
                return
            yield item
            del item
            turn = (turn + 1) % len(self._lanes)

    def close(self) -> None:
        """Ends threads and processes; returns when they are gone."""
        self._finalizer()


def _close(lanes: list[_Lane], threads: list[threading.Thread]) -> None:
    for lane in lanes:
        lane.stop.set()
    end = time.monotonic() + _STOPPING
    for lane, thread in zip(lanes, threads, strict=True):
        thread.join(max(end - time.monotonic(), 0.1))
        drain(lane.ready)

"""What the processes of one run tell each other beside the steps, which stay as they are.

They agree on the step to stop at, and learn that one of them has failed. Both go through the
key-value store of JAX's coordination service, from a thread: no step has a collective operation
more, and nothing waits for a device.

A step to stop at. Whoever is asked to stop writes a notice. Every process, when it sees the notice,
writes the last step that it went past, and goes past no other one until it knows those of all: the
step after the newest of them is still before everyone, and there everyone stops. This holds
whatever a process is doing at that moment, for its thread answers in its stead. Where the run ends
before that step, it just ends.

A failure. What cannot be agreed on, as steps that only some have begun, is left: a process that
fails says so and ends, and so do the others, with the status of :class:`PeerLost`. Whatever keeps
them (an operation that waits for the dead) is given a few seconds.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from branchnets.engine.hosts import distributed, failure
from branchnets.engine.hosts.store import NOTES, JaxStore, Store
from branchnets.engine.stopping import StopRequest
from branchnets.errors import PeerLost, first_line

#: Seconds between two looks at the store, and for a process to end by itself when another failed.
LOOK, GRACE = 0.2, 10.0
#: Seconds that the process that keeps the store stays when it has failed, for the others to read.
STAY = GRACE + 2

_runs = itertools.count()


class Peers:
    """One process's part in what the processes of a run agree on.

    Use: `at` after every step; `close` at the end, or `failed`.

    Attributes:
      asker: the process that was asked to stop before the others; None: none was.

    Args:
      stop: the request of this process.
      store: of all processes.
      process: which this one is.
      count: how many there are.
      end: ends this process with a status when it is kept from ending by itself.
      run: which one it is of those that these processes do one after the other.
    """

    def __init__(
        self,
        stop: StopRequest,
        store: Store,
        process: int,
        count: int,
        end: Callable[[int], Any] | None = None,
        run: int = 0,
    ) -> None:
        self._stop, self._store, self._process, self._count = stop, store, process, count
        self._end, self._notice, self._answers = end or _end_at_once, f"stop-{run}", f"passed/{run}"
        self._lock = threading.Lock()
        self._passed = -1
        self._noticed = False
        self.asker: int | None = None
        self._agreed = threading.Event()
        self._at, self._status = -1, 0
        self._lost: PeerLost | None = None
        # Process 0 answers all of them: once a second where they are many. For the answers, which
        # are as many as they are, more often where they are few.
        self._look = LOOK * min(max(count / 6, 1), 5)
        self._pause = min(LOOK / 10 * max(count / 6, 1), self._look)
        self._closing, self._wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def at(self, step: int) -> int | None:
        """The status to stop with after this step, the same in all processes; None: go on.

        Raises:
          PeerLost: another process has failed.
        """
        self.raise_if_lost()
        asked = self._stop.status is not None
        with self._lock:
            if not self._noticed and not asked:
                self._passed = step
                return None
        if asked:
            self._wake.set()  # no step more than those that the others have begun
        while not self._agreed.wait(LOOK):
            self.raise_if_lost()
        return self._status if step >= self._at else None

    def raise_if_lost(self) -> None:
        """Raises PeerLost if another process has failed."""
        if self._lost is not None:
            raise self._lost

    def ask(self, status: int) -> None:
        """Asks all processes to stop after one of the next steps, with a status."""
        if self._stop.status is None:
            self._stop.status = status

    def wait_for_failure(self) -> None:
        """Raises what the process that asked to stop with PEER_LOST has to say."""
        deadline = time.monotonic() + GRACE
        while time.monotonic() < deadline:
            self.raise_if_lost()
            time.sleep(LOOK / 10)

    def close(self) -> None:
        """The run has ended here: the others need not wait for an answer."""
        self._end_watch()
        self._thread.join()
        with contextlib.suppress(PeerLost):
            self._answer()

    def failed(self, error: BaseException) -> BaseException:
        """Tells the others of an error that ends this process; returns what it is to end with."""
        if failure.of_jax(error):
            error = self._explained(error)
        self._end_watch()  # this process ends by itself, with its own status
        failure.tell(self._store, self._process, error, trained=self._passed >= 0)
        return error

    def _explained(self, error: BaseException) -> BaseException:
        """PeerLost, where it is what another process's end brings about."""
        deadline = time.monotonic() + 5 * self._look
        while self._lost is None and time.monotonic() < deadline and self._thread.is_alive():
            time.sleep(LOOK / 10)  # the one that failed may tell why
        if self._lost is not None:
            return self._lost
        if not failure.is_broken(error):
            return error
        return PeerLost(f"the connection to another process broke ({first_line(error)}).")

    def _end_watch(self) -> None:
        self._closing.set()
        self._wake.set()

    def _rest(self) -> bool:
        """Between two looks; whether there is to be no other one."""
        self._wake.wait(self._look)
        self._wake.clear()
        return self._closing.is_set()

    def _watch(self) -> None:
        """The thread: looks for a failure and for a notice, until the end."""
        grace = GRACE
        try:
            while not self._rest() and not self._is_lost(notes := self._store.all(NOTES)):
                if not self._noticed and self._is_asked(notes):
                    self._agree()
        except Exception as error:  # JAX itself is about to abort this process
            grace = 0.0
            self._lost = error if isinstance(error, PeerLost) else PeerLost(f"{error!r}.")
        # What the main thread does may wait for the dead, and be deaf to anything else.
        if self._lost is not None and not self._closing.wait(grace):
            self._quit()

    def _is_lost(self, notes: Mapping[str, str]) -> bool:
        if self._lost is None:
            self._lost = failure.told(notes, self._process)
        return self._lost is not None

    def _quit(self) -> None:
        print(f"error: process {self._process}: {self._lost}", file=sys.stderr, flush=True)
        self._end(getattr(self._lost, "exit_status", PeerLost.exit_status))

    def _is_asked(self, notes: Mapping[str, str]) -> bool:
        if self._notice not in notes and self._stop.status is not None:
            self._store.set(f"{NOTES}/{self._notice}", f"{self._stop.status} {self._process}")
            notes = self._store.all(NOTES)  # another one may have been before
        if self._notice in notes:
            self._status, self.asker = map(int, notes[self._notice].split())
        return self._notice in notes

    def _answer(self) -> None:
        with self._lock:
            self._noticed = True
        self._store.set(f"{self._answers}/{self._process}", str(self._passed))

    def _agree(self) -> None:
        self._answer()
        while len(passed := self._store.all(self._answers)) < self._count:
            if self._is_lost(self._store.all(NOTES)) or self._closing.wait(self._pause):
                return
        self._at = max(map(int, passed.values())) + 1
        self._agreed.set()


class Alone:
    """In place of :class:`Peers` where there is one process."""

    asker = None

    def __init__(self, stop: StopRequest) -> None:
        self.stop = stop

    def at(self, step: int) -> int | None:
        """The status to stop with, if it was asked for."""
        del step
        return self.stop.status


@contextlib.contextmanager
def joined(stop: StopRequest) -> Iterator[Peers | Alone]:
    """What the processes of a run agree on while it lasts.

    Args:
      stop: the request of this process.

    Raises:
      PeerLost: in place of an error that another process's end brought about.
    """
    if not distributed.several():
        yield Alone(stop)
        return
    here, several = distributed.process(), distributed.count()
    peers = Peers(stop, JaxStore(), here, several, run=next(_runs))
    try:
        yield peers
        # Whoever is through waits here while another one writes: JAX's own wait has an end.
        distributed.together()
    except BaseException as error:
        known = peers.failed(error)
        if known is error:
            raise
        raise known from error
    peers.close()


def _end_at_once(status: int) -> None:
    with contextlib.suppress(PeerLost):
        JaxStore(patience=0.0).set(f"left/{distributed.process()}", "")
    os._exit(status)


def leave(error: BaseException, status: int) -> int:
    """Ends this process of several with a status, once the others know why; alone it returns it.

    JAX's own end would wait for the other processes, and then abort.
    """
    if not distributed.several():
        return status
    distributed.tell_failed(error)  # where it was not a run's
    with contextlib.suppress(PeerLost):
        _wait_to_leave(JaxStore(patience=0.0), distributed.process(), distributed.count())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _wait_to_leave(store: Store, process: int, count: int) -> None:
    """The first process keeps the store: it stays until the others have read why they end."""
    store.set(f"left/{process}", "")
    deadline = time.monotonic() + (STAY if process == 0 else 0)
    while time.monotonic() < deadline and len(store.all("left")) < count:
        time.sleep(LOOK / 10)

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
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
from jax._src.distributed import global_state  # orbax asks for it there, too

from branchnets.engine import distributed
from branchnets.engine.stopping import StopRequest
from branchnets.errors import PeerFailed, PeerLost, UserError

#: Seconds between two looks at the store, and for a process to end by itself when another failed.
LOOK, GRACE = 0.2, 10.0
#: Seconds that the process that keeps the store stays when it has failed, for the others to read.
STAY = GRACE + 2
#: In what a broken connection raises, of gloo (CPU), NCCL (GPU) and the coordination service.
_BROKEN = (
    "gloo", "nccl", "connection", "unavailable", "socket", "heartbeat", "deadline_exceeded",
    "aborted", "coordination",
)  # fmt: skip

_runs = itertools.count()


class Store(Protocol):
    """A key-value store that all processes see; a key is written once."""

    def set(self, key: str, value: str) -> None:
        """Writes; nothing where the key was written before. Raises OSError: out of reach."""
        ...

    def get(self, key: str) -> str | None:
        """What was written, or None. Raises OSError: out of reach."""
        ...


class JaxStore:
    """The store of JAX's coordination service.

    Args:
      client: of `jax.distributed`.
      room: put before every key.
    """

    def __init__(self, client: Any, room: str) -> None:
        self._client, self._room = client, room

    def set(self, key: str, value: str) -> None:
        """See :class:`Store`."""
        self._call(self._client.key_value_set, "ALREADY_EXISTS", f"{self._room}/{key}", value)

    def get(self, key: str) -> str | None:
        """See :class:`Store`."""
        # Not the blocking call: every one that times out stays with the coordinator for ever.
        return self._call(self._client.key_value_try_get, "NOT_FOUND", f"{self._room}/{key}")

    def _call(self, function: Callable[..., Any], passed_over: str, *arguments: str) -> Any:
        try:
            return function(*arguments)
        except jax.errors.JaxRuntimeError as error:
            if passed_over in str(error):
                return None
            raise OSError(_first_line(error)) from error


class Peers:
    """One process's part in what the processes of a run agree on.

    Use: `at` after every step; `close` at the end, or `failed`.

    Args:
      stop: the request of this process.
      store: of all processes.
      process: which this one is.
      count: how many there are.
      end: ends this process with a status when it is kept from ending by itself.
    """

    def __init__(
        self,
        stop: StopRequest,
        store: Store,
        process: int,
        count: int,
        end: Callable[[int], Any] | None = None,
    ) -> None:
        self._stop, self._store, self._process, self._count = stop, store, process, count
        self._end = end or _end_at_once
        self._lock = threading.Lock()
        self._passed = -1
        self._noticed = False
        self._agreed = threading.Event()
        self._at, self._status = -1, 0
        self._lost: PeerLost | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def at(self, step: int) -> int | None:
        """The status to stop with after this step, the same in all processes; None: go on.

        Raises:
          PeerLost: another process has failed.
        """
        self.raise_if_lost()
        with self._lock:
            if not self._noticed:
                self._passed = step
                return None
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
        self._closing.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self._answer()

    def failed(self, error: BaseException) -> BaseException:
        """Tells the others of an error that ends this process; returns what it is to end with."""
        if isinstance(error, jax.errors.JaxRuntimeError):
            error = self._explained(error)
        text = str(error.args[0]) if isinstance(error, UserError) else repr(error)
        lost = isinstance(error, PeerLost)
        status = getattr(error, "exit_status", 1)
        note = {"process": self._process, "text": text, "lost": lost, "status": status}
        with contextlib.suppress(OSError):
            self._store.set("failed", json.dumps(note))
        return error

    def _explained(self, error: BaseException) -> BaseException:
        """PeerLost, where it is what another process's end brings about."""
        line = _first_line(error)
        broken = any(word in line.lower() for word in _BROKEN)
        deadline = time.monotonic() + 5 * LOOK
        while self._lost is None and time.monotonic() < deadline and self._thread.is_alive():
            time.sleep(LOOK / 10)  # the one that failed may tell why
        if self._lost is not None:
            return self._lost
        return PeerLost(f"the connection to another process broke ({line}).") if broken else error

    def _watch(self) -> None:
        """The thread: looks for a failure and for a notice, until the end."""
        try:
            while not self._closing.wait(LOOK) and not self._look_for_failure():
                if not self._noticed and self._look_for_notice():
                    self._agree()
        except OSError as error:  # JAX itself is about to abort this process
            self._lost = PeerLost(f"the process that coordinates them is out of reach ({error}).")
            self._quit()

    def _look_for_failure(self) -> bool:
        told = self._store.get("failed")
        if told is None:
            return False
        note = json.loads(told)
        if note["process"] != self._process:
            what = "lost another one" if note["lost"] else "failed"
            # Before the first step there is nothing to go on from, and likely something to mend.
            mend = note["status"] == UserError.exit_status and self._passed < 0
            kind = PeerFailed if mend else PeerLost
            self._lost = kind(f"process {note['process']} {what}: {note['text']}")
            # What the main thread does may wait for the dead, and be deaf to anything else.
            if not self._closing.wait(GRACE):
                self._quit()
        return True

    def _quit(self) -> None:
        print(f"error: process {self._process}: {self._lost}", file=sys.stderr, flush=True)
        self._end(getattr(self._lost, "exit_status", PeerLost.exit_status))

    def _look_for_notice(self) -> bool:
        if self._stop.status is not None:
            self._store.set("stop", str(self._stop.status))
        told = self._store.get("stop")
        if told is None:
            return False
        self._status = int(told)
        return True

    def _answer(self) -> None:
        with self._lock:
            self._noticed = True
        self._store.set(f"passed/{self._process}", str(self._passed))

    def _agree(self) -> None:
        self._answer()
        passed: list[int] = []
        while len(passed) < self._count:
            told = self._store.get(f"passed/{len(passed)}")
            if told is not None:
                passed.append(int(told))
            elif self._look_for_failure() or self._closing.wait(LOOK / 10):
                return
        self._at = max(passed) + 1
        self._agreed.set()


class Alone:
    """In place of :class:`Peers` where there is one process."""

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
    store = _store(f"run/{next(_runs)}")
    peers = Peers(stop, store, distributed.process(), distributed.count())
    distributed.interrupts.append(peers.raise_if_lost)
    try:
        yield peers
    except BaseException as error:
        known = peers.failed(error)
        if known is error:
            raise
        raise known from error
    finally:
        distributed.interrupts.remove(peers.raise_if_lost)
    peers.close()


def _end_at_once(status: int) -> None:
    with contextlib.suppress(OSError):
        _store("left").set(str(distributed.process()), "")
    os._exit(status)


def leave(status: int) -> int:
    """Ends the process when its run has failed; alone it returns the status.

    JAX's own end would wait for the other processes, and then abort.
    """
    if not distributed.several():
        return status
    with contextlib.suppress(OSError):
        _wait_to_leave(_store("left"), distributed.process(), distributed.count())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _wait_to_leave(store: Store, process: int, count: int) -> None:
    """The first process keeps the store: it stays until the others have read why they end."""
    store.set(str(process), "")
    deadline = time.monotonic() + (STAY if process == 0 else 0)
    while time.monotonic() < deadline:
        if all(store.get(str(other)) is not None for other in range(count)):
            return
        time.sleep(LOOK / 10)


def _store(room: object) -> JaxStore:
    return JaxStore(global_state.client, f"branchnets/{room}")


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]

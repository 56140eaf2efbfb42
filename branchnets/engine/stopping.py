"""Being asked to stop: Ctrl-C, or the signal that a scheduler sends before it takes the machine."""

from __future__ import annotations

import signal
import sys
from types import FrameType

from branchnets.errors import PeerLost

#: Exit statuses: the run is whole on disk and goes on when it is started again.
PREEMPTED = 75  # EX_TEMPFAIL
INTERRUPTED = 130  # what shells report for Ctrl-C
PEER_LOST = PeerLost.exit_status  # of several processes, another one is no more


class StopRequest:
    """Notes SIGINT and SIGTERM instead of dying of them; a second SIGINT kills at once.

    Use as a context manager, inside itself if need be; ``status`` is None or the exit status to
    stop with.
    """

    def __init__(self) -> None:
        self.status: int | None = None
        self._old: dict[int, object] = {}
        self._entered = 0

    def __enter__(self) -> StopRequest:
        self._entered += 1
        if self._entered > 1:
            return self
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._old[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread: the caller handles signals
                break
        return self

    def __exit__(self, *_: object) -> None:
        self._entered -= 1
        if self._entered:
            return
        for number, handler in self._old.items():
            # None: of a handler that is not Python's, such as that of JAX's preemption service.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]

    def _note(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and self.status is not None:
            raise KeyboardInterrupt
        self.status = INTERRUPTED if number == signal.SIGINT else PREEMPTED
        name = signal.Signals(number).name
        print(f"\n{name}: stopping after this step and saving ...", file=sys.stderr, flush=True)

"""The progress bar of a search that ends at a time."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

_WIDTH = 20


class Bar:
    """Shows the share of the time budget that is used, what is tried and what is best so far.

    A line that changes in place on a terminal, a line now and then elsewhere.  It is drawn by a
    thread, so that it moves while one long step runs.  Use as a context.

    Args:
      budget: seconds.
      stream: standard error by default.
      every: seconds between two drawings; by default 0.2 on a terminal, else 10.
      clock: gives the time in seconds.
    """

    def __init__(
        self,
        budget: float,
        *,
        stream: TextIO | None = None,
        every: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._budget, self._clock, self._start = budget, clock, clock()
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._every = every if every is not None else (0.2 if self._terminal else 10.0)
        self._doing, self._best = "starting", "nothing yet"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def doing(self, text: str) -> None:
        """Say what is tried."""
        self._doing = text

    def best(self, text: str) -> None:
        """Say what is best so far."""
        self._best = text

    def line(self) -> str:
        """The bar as text."""
        used = self._clock() - self._start
        full = min(_WIDTH, int(_WIDTH * used / self._budget))
        bar = "#" * full + "-" * (_WIDTH - full)
        time_used = f"{used:.0f} of {self._budget:g} s"
        return f"[{bar}] {time_used} · {self._doing} · best: {self._best}"

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            if self._terminal:
                text = self.line()[: shutil.get_terminal_size().columns - 1]
                self._stream.write(f"\r{text}\x1b[K")
            else:
                self._stream.write(self.line() + "\n")
            self._stream.flush()

    def __enter__(self) -> Bar:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._terminal:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

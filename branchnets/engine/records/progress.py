"""The line that tells how far a run is, how fast, and how long it will still take."""

from __future__ import annotations

import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

_WINDOW = 20  # updates that the rate is taken over


class Progress:
    """A progress line: one that changes in place on a terminal, a line now and then elsewhere.

    The rate is that of the latest updates; the time before the first one, in which the step is
    compiled, and the time inside `pause` do not count.

    Args:
      total: Steps of the whole run.
      batch_size: Examples of one step.
      stream: Where to write; standard error by default.
      enabled: Whether this process writes at all.
      every_seconds: Time between lines where there is no terminal.
      clock: Gives the time in seconds.
    """

    def __init__(
        self,
        total: int,
        *,
        batch_size: int,
        stream: TextIO | None = None,
        enabled: bool = True,
        every_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._total, self._batch_size = total, batch_size
        self._stream = sys.stderr if stream is None else stream
        self._enabled, self._every, self._clock = enabled, every_seconds, clock
        self._terminal = self._stream.isatty()
        self._seen: deque[tuple[int, float]] = deque(maxlen=_WINDOW)  # (step, time not paused)
        self._paused = 0.0
        self._printed: float | None = None
        self._line = ""

    def update(self, step: int, **values: float) -> None:
        """Say that `step` steps are done; `values`, such as loss=0.3, are shown beside."""
        now = self._clock()
        self._seen.append((step, now - self._paused))
        last = step >= self._total
        if self._terminal:
            self._draw(self._text(step, values))
            if last:
                self.close()
        elif self._printed is None or last or now - self._printed >= self._every:
            self._printed = now
            self._write(self._text(step, values) + "\n")

    @property
    def examples_per_second(self) -> float | None:
        """The rate, or None before there are two updates to take it from."""
        (first, start), (last, end) = self._seen[0], self._seen[-1]
        return (last - first) * self._batch_size / (end - start) if end > start else None

    @property
    def settled_rate(self) -> float | None:
        """The rate, once it is of two intervals or more: the first may hold what comes once."""
        return self.examples_per_second if len(self._seen) > 2 else None

    def _text(self, step: int, values: dict[str, float]) -> str:
        parts = [f"step {step}/{self._total}"]
        rate = self.examples_per_second
        if rate:
            parts.append(f"{rate:,.0f} examples/s" if rate >= 100 else f"{rate:.3g} examples/s")
        parts += [f"{name} {value:.4g}" for name, value in values.items()]
        if rate:
            left = (self._total - step) * self._batch_size / rate
            parts.append(f"{duration(left)} left")
        return " · ".join(parts)

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Leave the time inside, of an evaluation for example, out of the rate."""
        start = self._clock()
        try:
            yield
        finally:
            self._paused += self._clock() - start

    def message(self, text: str) -> None:
        """Print a line of its own above the progress line."""
        if self._terminal and self._line:
            self._write(f"\r\x1b[K{text}\n{self._line}")
        else:
            self._write(text + "\n")

    def close(self) -> None:
        """End the line, so that what is printed next starts on a new one."""
        if self._line:
            self._line = ""
            self._write("\n")

    def _draw(self, text: str) -> None:
        self._line = text[: shutil.get_terminal_size().columns - 1]
        self._write(f"\r{self._line}\x1b[K")

    def _write(self, text: str) -> None:
        if self._enabled:
            self._stream.write(text)
            self._stream.flush()


def duration(seconds: float) -> str:
    """Return a time as "1:02:03" or "2:03"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

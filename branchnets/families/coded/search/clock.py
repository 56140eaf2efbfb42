"""How long a search may still take, and what it is doing."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Clock:
    """A deadline that searches look at between steps.

    Attributes:
      deadline: in the seconds of `now`.
      report: called with a few words on what is going on.
      now: gives the time in seconds.
    """

    deadline: float = float("inf")
    report: Callable[[str], None] = lambda text: None
    now: Callable[[], float] = time.monotonic

    @property
    def left(self) -> float:
        """Seconds until the deadline, at least 0."""
        return max(0.0, self.deadline - self.now())

    @property
    def expired(self) -> bool:
        """Whether the deadline has passed."""
        return self.now() >= self.deadline

    def within(self, seconds: float) -> Clock:
        """This clock with a deadline that is at most so many seconds away."""
        return dataclasses.replace(self, deadline=min(self.deadline, self.now() + seconds))

"""TensorBoard's event files, written where they are called: an error reaches the caller.

tensorboardX's SummaryWriter writes in a thread, which a full disk ends; the caller then waits for
it for ever. These are the parts of it that start no thread.
"""

from __future__ import annotations

import time
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

_FLUSH_SECONDS = 10.0


class Events:
    """Scalars in an event file of their own.

    Args:
      directory: where the file goes.
      purge_step: what other files in the directory tell of this step and later ones is void.

    Raises (also from the methods):
      OSError: the file cannot be written.
    """

    def __init__(self, directory: str | Path, purge_step: int | None = None) -> None:
        self._writer = EventsWriter(str(Path(directory) / "events"))
        self._flushed = time.monotonic()
        if purge_step is not None:
            start = SessionLog(status=SessionLog.START)
            self._write(Event(step=purge_step, file_version="brain.Event:2"))
            self._write(Event(step=purge_step, session_log=start))
        self._writer.flush()

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Adds a value; it is on disk some seconds later."""
        self._write(Event(step=step, summary=scalar(tag, value)))
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self._writer.flush()
            self._flushed = time.monotonic()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._writer.write_event(event)

    def flush(self) -> None:
        """Brings on disk what was added."""
        self._writer.flush()

    def close(self) -> None:
        """Writes what is left, and closes the file."""
        self._writer.close()

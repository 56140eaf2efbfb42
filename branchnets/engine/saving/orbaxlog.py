"""What orbax says in the log: kept off the terminal, and heard where it raises nothing."""

from __future__ import annotations

import logging

#: Of orbax: the thread that writes a save and puts it in its place.
_WRITER = "async_save"


class _Quiet(logging.Filter):
    """Keeps orbax's remarks off the terminal: what the user should know is raised as an error."""

    def __init__(self) -> None:
        super().__init__()
        self.failure: BaseException | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        if "orbax" not in record.pathname:
            return True
        failed = record.levelno >= logging.ERROR and record.exc_info
        if record.threadName == _WRITER and failed:
            self.failure = failed[1]
        return False


_quiet = _Quiet()


def quieten() -> None:
    """Keeps what orbax logs off the terminal from now on."""
    logging.getLogger("absl").addFilter(_quiet)  # once, however often it is called


def begin() -> None:
    """A save begins."""
    _quiet.failure = None


def failure() -> BaseException | None:
    """What ended the writing of the newest save in the background; None: nothing did so far.

    Of several processes orbax raises it only when all of them have ended theirs, and those that
    wait for this one do not: for it, the log is all there is.
    """
    return _quiet.failure

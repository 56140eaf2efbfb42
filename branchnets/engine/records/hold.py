"""Who has a run directory: a lock on a disk; on an object store, the run that came last."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import sys
import uuid
from pathlib import Path
from typing import IO

from branchnets.errors import RunDirError
from branchnets.storage import AnyPath, RemotePath

_LOCK = ".lock"


def take(directory: AnyPath) -> Lock | Token:
    """Takes a run directory, which is made if need be.

    Raises:
      RunDirError: another process holds it, or it cannot be written.
    """
    return Token(directory) if isinstance(directory, RemotePath) else Lock(directory)


class Lock:
    """The lock of a file, which belongs to the process: it ends with it, however that ends."""

    def __init__(self, directory: Path) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file: IO[str] = (directory / _LOCK).open("a+")
        except OSError as error:
            raise _unwritten(directory, error, " Choose another --workdir.") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            raise RunDirError(
                f"{directory} is in use by {holder}. Wait for it, or choose another --workdir."
            ) from None
        except OSError:
            pass  # a file system without locks; one process a directory is then up to the user
        try:
            self._file.truncate(0)
            self._file.write(f"{_self()}\n")
            self._file.flush()
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.close()
            raise _unwritten(directory, error) from error

    def check(self) -> None:
        """Does nothing: what is locked stays so."""

    def release(self) -> None:
        """Lets others have the directory."""
        self._file.close()


class Token:
    """An object that names the run that has the directory.

    Nothing tells whether a run that is gone was killed, so no run is refused: the one that comes
    takes over, and the one before finds that out when it wants to write, also when the one that
    came has ended since and its object is gone.
    """

    def __init__(self, directory: RemotePath) -> None:
        self._directory, self._file = directory, directory / _LOCK
        try:
            if before := self._holder():
                print(
                    f"{directory} was not closed by {_named(before)}. If that one still runs, it "
                    "stops at its next save.",
                    file=sys.stderr,
                )
            self._own = {"holder": _self(), "token": uuid.uuid4().hex}
            self._file.write_text(json.dumps(self._own) + "\n")
        except OSError as error:
            raise _unwritten(directory, error, " Choose another --workdir.") from error

    def check(self) -> None:
        """Refuses to go on where another run has taken over.

        Raises:
          RunDirError: it has.
          StorageError: that cannot be found out, at this time.
        """
        now = self._holder()
        if now != self._own:
            raise RunDirError(
                f"{self._directory} was taken over by {_named(now or {})}. This run stops and "
                "writes nothing more; give every run a --workdir of its own."
            )

    def release(self) -> None:
        """Lets others have the directory without a word."""
        with contextlib.suppress(RunDirError, OSError):
            self.check()
            self._file.unlink(missing_ok=True)

    def _holder(self) -> dict[str, str] | None:
        """What the object says; None where there is none, empty where it says nothing."""
        try:
            text = self._file.read_text()
        except FileNotFoundError:
            return None
        try:
            return dict(json.loads(text))
        except (ValueError, TypeError):
            return {}


def _named(holder: dict[str, str]) -> str:
    return holder.get("holder", "another run")


def _self() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _unwritten(directory: AnyPath, error: OSError, advice: str = "") -> RunDirError:
    return RunDirError(
        f"the run directory {directory} cannot be written: {error.strerror}.{advice}"
    )

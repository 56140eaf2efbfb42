"""Errors whose message is meant for the person at the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can put right: the message says what and how.

    A command line prints the message without a traceback and exits with `exit_status`.
    """

    exit_status = 2


class ConfigError(UserError, ValueError):
    """A config, a config argument or an override that cannot be used."""


class DataError(UserError, ValueError):
    """A data set that is not there, is damaged, or cannot be used as the config says."""


class ExampleError(DataError):
    """One example that cannot be used, whatever machine reads it: missing, damaged, or mislabelled.

    What goes wrong with the machine, a file system or a network is no such error.
    """


class StorageError(DataError, OSError):
    """A file behind a URL that cannot be read or written: a service, a network or a key fails.

    What is not there is a FileNotFoundError, as on a disk.

    Args:
      message: what cannot be done, and why.
      reason: why alone, for messages that tell the rest themselves, as `strerror` of a disk's.
    """

    def __init__(self, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.strerror = message if reason is None else reason


class RunDirError(UserError):
    """A run directory that cannot be used as asked. Nothing in it was changed."""


class DeployError(UserError):
    """A folder with a deployable network that cannot be written or read."""


class ReportError(UserError):
    """A report that cannot be written where it was asked for. What was there before is whole."""


class CheckpointError(UserError):
    """A checkpoint that cannot be restored as asked."""


class SaveError(CheckpointError, RunDirError):
    """A service did not take what was to be saved; started again, the run goes on or begins anew.

    That may pass, so the status is that of what is to be tried again.
    """

    exit_status = 75


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a sentence that names the known name nearest to `name`, or all of them.

    A dotted name is also compared by its last part alone, so that a field named without its
    section, or in the wrong one, is found.

    >>> nearest("optimizer.momentun", ["optimizer.momentum", "seed"])
    "Did you mean 'optimizer.momentum'?"
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    if not close:
        leaf = name.rpartition(".")[2]
        leaves: dict[str, list[str]] = {}
        for path in known:
            leaves.setdefault(path.rpartition(".")[2], []).append(path)
        match = difflib.get_close_matches(leaf, list(leaves), n=1, cutoff=0.6)
        if match:  # of several fields with this last part, the one most like the whole name
            close = difflib.get_close_matches(name, leaves[match[0]], n=1, cutoff=0.0)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"Known: {', '.join(known)}." if known else "There are none."


class TrainingError(UserError):
    """A run that cannot go on; what was saved before is whole."""


class PeerLost(UserError):
    """Another process of the run died or failed; what was saved before is whole."""

    exit_status = 76

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text} What was saved is whole: start all processes again to go on."


class PeerFailed(PeerLost):
    """Another process of the run met something that the user can put right."""

    exit_status = UserError.exit_status

    def __str__(self) -> str:
        return UserError.__str__(self)


def unknown(kind: str, name: str, known: Iterable[str]) -> ConfigError:
    """The error for a name that does not exist: the nearest one, and all of them."""
    known = sorted(known)
    hint = nearest(str(name), known)
    everything = "" if hint.startswith("Known") else f" Known: {', '.join(known)}."
    return ConfigError(f"unknown {kind} {name!r}. {hint}{everything}")


def first_line(error: BaseException | str) -> str:
    """Of what an error says: those of libraries go on with where they were noticed."""
    return str(error).strip().partition("\n")[0]

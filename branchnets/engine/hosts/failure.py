"""The note that a process leaves when it cannot go on, and what the others make of it.

There is one, of whoever was first: one failure ends all processes. Its reader needs nothing but the
note, so all of them end alike, wherever they find it.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping

import jax

from branchnets.engine.hosts.store import NOTES, Store
from branchnets.errors import PeerFailed, PeerLost, UserError, first_line

_NAME = "failed"
#: In what a broken connection raises, of gloo (CPU), NCCL (GPU) and the coordination service.
_BROKEN = (
    "gloo", "nccl", "connection", "unavailable", "socket", "heartbeat", "deadline_exceeded",
    "aborted", "coordination",
)  # fmt: skip
_UNREAD = re.compile(r"[A-Z_]+: (?:Gloo|NCCL)\b", re.IGNORECASE)


def of_jax(error: BaseException | None) -> bool:
    """Whether JAX itself raised an error, of a device, a compiler or a connection."""
    # A plain ValueError where a value is read whose operation has failed; tensorstore raises such
    # ones about files and buckets, which say nothing of the processes.
    unread = type(error) is ValueError and _UNREAD.match(str(error)) is not None
    return unread or isinstance(error, jax.errors.JaxRuntimeError)


def is_broken(error: BaseException) -> bool:
    """Whether an error is that of a broken connection to another process."""
    line = first_line(error).lower()
    # Memory is that of its own device, whatever it was about.
    memory = "resource_exhausted" in line
    return of_jax(error) and not memory and any(word in line for word in _BROKEN)


def tell(store: Store, process: int, error: BaseException, *, trained: bool = False) -> None:
    """Leaves the note, if no other process has.

    Args:
      store: of all processes.
      process: which one has failed.
      error: of which.
      trained: whether there were steps before it.
    """
    note = {
        "process": process,
        "text": str(error.args[0]) if isinstance(error, UserError) else repr(error),
        "lost": isinstance(error, PeerLost),
        # Before the first step there is nothing to go on from, and likely something to mend.
        "mend": not trained and getattr(error, "exit_status", 1) == UserError.exit_status,
    }
    with contextlib.suppress(PeerLost):
        store.set(f"{NOTES}/{_NAME}", json.dumps(note))


def told(notes: Mapping[str, str], process: int) -> PeerLost | None:
    """What another process has left a note of; None: no other one has.

    Args:
      notes: of `Store.all`.
      process: which one reads.
    """
    if _NAME not in notes:
        return None
    note = json.loads(notes[_NAME])
    if note["process"] == process:
        return None
    what = "lost another one" if note["lost"] else "failed"
    kind = PeerFailed if note["mend"] else PeerLost
    return kind(f"process {note['process']} {what}: {note['text']}")

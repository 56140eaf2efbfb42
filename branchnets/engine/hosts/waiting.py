"""The end of a process that waits for the others in vain: in JAX, where Python hears nothing."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator

from branchnets.engine.hosts import address
from branchnets.engine.hosts.cluster import Place
from branchnets.errors import ConfigError, PeerLost


@contextlib.contextmanager
def ends(place: Place, timeout: float, *, refusable: bool) -> Iterator[None]:
    """Ends the process with a message if what is inside takes too long, or JAX aborts it.

    Args:
      place: of this process.
      timeout: seconds; then the status is that of PeerLost.
      refusable: whether an abort comes of numbers that somebody gave, and can put right: the status
        is that of ConfigError.
    """
    late = threading.Timer(timeout, lambda: _end(_missing(place, timeout), PeerLost.exit_status))
    late.daemon = True
    late.start()
    main = threading.current_thread() is threading.main_thread()
    interrupted = signal.signal(signal.SIGINT, signal.SIG_DFL) if main else None  # Ctrl-C ends it
    try:
        with contextlib.ExitStack() as stack:
            if refusable:
                stack.enter_context(
                    _at_abort(lambda: _end(_refused(place), ConfigError.exit_status))
                )
            yield
    finally:
        late.cancel()
        if main:
            signal.signal(signal.SIGINT, interrupted or signal.SIG_DFL)


def named(place: Place) -> str:
    """A process, and its host."""
    return f"process {place.process} of {place.count} ({socket.gethostname()})"


def _end(message: str, status: int) -> None:
    print(f"error: {message}", file=sys.stderr, flush=True)
    os._exit(status)


def _missing(place: Place, timeout: float) -> str:
    if place.process == 0:
        return (
            f"not all of {place.count} processes came to {place.address} within {timeout:g} s. "
            f"{address.connected_text(place.address)} Each of the others says on its own standard "
            "error which address it tries: look at those that do not, start all of them with the "
            "same --coordinator_address and --num_processes and numbers from 0 to "
            f"{place.count - 1}, or give a longer --initialization_timeout."
        )
    return (
        f"process {place.process} of {place.count} found no process 0, or not all others, at "
        f"{place.address} within {timeout:g} s. See whether process 0 runs, says that it waits at "
        "this address, and can be reached from here (its port may be closed), or give a longer "
        "--initialization_timeout."
    )


def _refused(place: Place) -> str:
    return (
        f"{named(place)} was refused at {place.address}; JAX says why above. Give all processes of "
        "a run the same --num_processes, each a --process_id of its own, and every run an address "
        "of its own."
    )


@contextlib.contextmanager
def _at_abort(end: Callable[[], None]) -> Iterator[None]:
    """Calls `end` where JAX aborts the process: whom process 0 refuses cannot raise an error.

    Python's own handlers run between two of its instructions, and there is none after an abort.
    """
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _: end())
    install = ctypes.CDLL(None).signal
    install.argtypes, install.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    before = install(signal.SIGABRT, ctypes.cast(handler, ctypes.c_void_p))
    try:
        yield
    finally:
        install(signal.SIGABRT, before)

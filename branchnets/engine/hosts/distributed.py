"""Several processes, one a host: how they find each other, and how they agree on something.

What they agree on goes through the key-value store of JAX's coordination service: it needs no
device, works before there is any, and lets a process that cannot go on say why.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax._src.distributed import global_state  # orbax asks for it there, too

from branchnets import errors
from branchnets.engine.hosts import address, cluster, failure, waiting
from branchnets.engine.hosts.store import NOTES, JaxStore
from branchnets.errors import PeerLost, UserError, first_line

#: Seconds until a process that never arrives ends the others.
INITIALIZATION_TIMEOUT = 300
#: Seconds after which a process that gives no sign of life is lost, and JAX aborts the others
#: (134), where no connection has broken before.
HEARTBEAT_TIMEOUT = 60
#: Seconds that one process waits for what another has to say, and between two looks for it.
_PATIENCE, _LOOK = 3600.0, 0.05
#: Seconds after which it says what it waits for.
_TELL = 30.0

_turns = itertools.count()


# Start


def initialize(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout: int = INITIALIZATION_TIMEOUT,
) -> None:
    """Starts `jax.distributed` where there are several processes; before anything asks for devices.

    Without arguments the place of this process is what a TPU pod or SLURM says; elsewhere, and
    where there is one process in all, nothing is started.

    Args:
      coordinator_address: HOST:PORT of process 0, the port free there.
      num_processes: how many there are.
      process_id: which one this is, 0 to num_processes - 1.
      timeout: seconds to wait for all of them. After that the process ends, with a message and the
        status of PeerLost.

    Raises:
      UserError: the place is not known in whole, or cannot be used.
    """
    place = cluster.place(coordinator_address, num_processes, process_id, timeout)
    if place is None or place.count == 1:
        return
    given = coordinator_address is not None
    if place.process == 0 and "JAX_COORDINATOR_BIND_ADDRESS" not in os.environ:
        other = "--coordinator_address" if given else "one as JAX_COORDINATOR_PORT on all hosts"
        address.check_free(place.address, f"choose another {other}")
    others = f"the other {place.count - 1}" if place.process == 0 else "process 0"
    say(
        f"{waiting.named(place)}: waiting for {others} at {place.address}, at most {timeout} s "
        "(Ctrl-C ends it) ..."
    )
    try:
        # Its handler of SIGTERM would replace, or be replaced by, that of engine/stopping.py, and
        # engine/hosts/peers.py does what it is for.
        jax.config.update("jax_enable_preemption_service", False)
        with waiting.ends(place, timeout, refusable=given):
            jax.distributed.initialize(
                place.address,
                place.count,
                place.process,
                local_device_ids=place.local_devices,
                cluster_detection_method="deactivate",  # done
                # JAX would abort the process: it is ended before that, with a message.
                initialization_timeout=timeout + 60,
                heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
            )
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(
            f"{waiting.named(place)} cannot start at {place.address}: {first_line(error)}."
        ) from error
    if place.process == 0:
        say(f"all {place.count} processes are there.")


def say(message: str) -> None:
    """Says something on standard error, at once."""
    print(message, file=sys.stderr, flush=True)


# Who we are, without starting any device


def several() -> bool:
    """Whether this process is one of several."""
    return count() > 1


def count() -> int:
    """How many processes there are."""
    return global_state.num_processes if global_state.client is not None else 1


def process() -> int:
    """Which of them this one is."""
    return global_state.process_id if global_state.client is not None else 0


def is_first() -> bool:
    """Whether this process is the one that writes and prints."""
    return process() == 0


# Failure


def tell_failed(error: BaseException) -> None:
    """Tells the other processes, which may wait for this one, of what ends it."""
    if several():
        failure.tell(JaxStore(patience=0.0), process(), error)


def waits(whom: str | None = None) -> Iterator[None]:
    """Goes on for ever, with pauses, until another process has failed.

    Args:
      whom: what is waited for, to be told where it takes long.

    Raises:
      PeerLost: another process does not come, or said that it has failed.
    """
    started, told = time.monotonic(), False
    while True:
        # First: whoever failed may have done before that what is waited for.
        failed = failure.told(JaxStore().all(NOTES), process()) if several() else None
        yield
        if failed is not None:
            raise failed
        waited = time.monotonic() - started
        if whom is not None and waited > _PATIENCE:
            raise PeerLost(f"{whom} did not come to an agreement in {_PATIENCE:g} s.")
        if whom is not None and waited > _TELL and not told:
            told = True
            say(f"process {process()}: waiting for {whom} ...")
        # All of them ask process 0: the more there are, the more rarely.
        time.sleep(min(max(_LOOK, count() / 256), waited / 10))


# Agreement.  Every process calls these in the same order, from its main thread.


def gathered(value: Any) -> list[Any]:
    """What each process gives, on all of them, in their order.

    Args:
      value: fit for JSON.

    Raises:
      PeerLost: another process does not come, or said that it has failed.
    """
    value = json.loads(json.dumps(value))  # as the others get it
    if not several():
        return [value]
    store, number = JaxStore(), next(_turns)
    turn = f"agreed/{number}"
    if process() != 0:
        store.set(f"{turn}/of/{process()}", json.dumps(value))
        return json.loads(_awaited("process 0", lambda: store.get(f"{turn}/all")))
    values, given = [value], {}
    while len(values) < count():
        other = str(len(values))
        if other not in given:  # those of all that have come, at one time
            given = _awaited(
                f"process {other}",
                lambda: found if other in (found := store.all(f"{turn}/of")) else None,  # noqa: B023
            )
        values.append(json.loads(given[other]))
    store.set(f"{turn}/all", json.dumps(values))
    if number:  # who has given something now has read what was agreed on before
        with contextlib.suppress(PeerLost):  # all have agreed; what is left harms none
            store.delete(f"agreed/{number - 1}")
    return values


def _awaited(whom: str, look: Callable[[], Any]) -> Any:
    for _ in waits(whom):
        if (found := look()) is not None:
            return found
    raise AssertionError("waits has no end")


def together() -> None:
    """Returns when every process has come here."""
    gathered(None)


def on_first_process(function: Callable[[], Any]) -> Any:
    """What a function gives on the first process, the only one that calls it, on all of them.

    Args:
      function: gives something fit for JSON.

    Raises:
      UserError: raised by it; on the other processes one of the same class, with its message.
    """
    if not several():
        return function()
    given: dict[str, Any] | None = None
    raised: UserError | None = None
    if is_first():
        try:
            given = {"value": function()}
        except UserError as error:
            given, raised = {"kind": type(error).__name__, "text": str(error)}, error
    given = gathered(given)[0]
    if raised is not None:
        raise raised
    if "kind" in given:
        raise getattr(errors, given["kind"], UserError)(f"process 0: {given['text']}")
    return given["value"]


def smallest(value: int | None) -> int | None:
    """The smallest number that any process gives; None where none gives one."""
    return min((found for found in gathered(value) if found is not None), default=None)


def total(value: int) -> int:
    """The sum of what all processes give."""
    return sum(gathered(value))

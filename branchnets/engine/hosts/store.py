"""The key-value store of JAX's coordination service: how processes tell each other something.

It needs no device, works before there is any, and answers while the devices wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import jax
from jax._src.distributed import global_state  # orbax asks for it there, too

from branchnets.errors import PeerLost, first_line

#: Seconds for which what does not answer is asked again: less than JAX takes to abort the process.
PATIENCE = 3.0
_PAUSE = 0.2
#: The folder of what every process looks at again and again.
NOTES = "notes"


class Store(Protocol):
    """A key-value store that all processes see; a key is written once, and a/b is in folder a."""

    def set(self, key: str, value: str) -> None:
        """Writes; nothing where the key was written before. Raises PeerLost: out of reach."""
        ...

    def get(self, key: str) -> str | None:
        """What was written, or None. Raises PeerLost: out of reach."""
        ...

    def all(self, folder: str) -> dict[str, str]:
        """What was written in a folder, by the names in it. Raises PeerLost: out of reach."""
        ...

    def delete(self, folder: str) -> None:
        """Deletes a folder and all that is in it. Raises PeerLost: out of reach."""
        ...


class JaxStore:
    """The store of JAX's coordination service, once `jax.distributed` is initialised.

    Args:
      patience: seconds for which what does not answer is asked again.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience

    def set(self, key: str, value: str) -> None:
        """See :class:`Store`."""
        self._ask("key_value_set", "ALREADY_EXISTS", _full(key), value)

    def get(self, key: str) -> str | None:
        """See :class:`Store`."""
        # Not the blocking call: every one that times out stays with the coordinator for ever.
        return self._ask("key_value_try_get", "NOT_FOUND", _full(key))

    def all(self, folder: str) -> dict[str, str]:
        """See :class:`Store`."""
        start = f"{_full(folder)}/"
        found = self._ask("key_value_dir_get", "NOT_FOUND", start) or []
        return {key.removeprefix(start): value for key, value in found}

    def delete(self, folder: str) -> None:
        """See :class:`Store`."""
        self._ask("key_value_delete", "NOT_FOUND", _full(folder))

    def _ask(self, name: str, passed_over: str, *arguments: str) -> Any:
        function: Callable[..., Any] = getattr(global_state.client, name)
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return function(*arguments)
            except jax.errors.JaxRuntimeError as error:
                if passed_over in str(error):
                    return None
                if time.monotonic() > deadline:
                    raise PeerLost(f"process 0 is out of reach ({first_line(error)}).") from error
            time.sleep(_PAUSE)


def _full(key: str) -> str:
    return f"branchnets/{key}"

"""Arrays that are slow to make, kept in a cache directory away from the data.

The data may be read-only; the cache may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from branchnets.data.stored.remote import fingerprint
from branchnets.errors import DataError
from branchnets.storage import AnyPath


class NoSuchFile(DataError, FileNotFoundError):
    """Something that an array is made from is not there."""


def cache_dir() -> Path:
    """BRANCHNETS_CACHE, else `branchnets` in XDG_CACHE_HOME, else in ~/.cache."""
    if own := os.environ.get("BRANCHNETS_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "branchnets"


def cached(
    kind: str, files: Iterable[AnyPath], what: str, make: Callable[[], np.ndarray]
) -> np.ndarray:
    """`make()`, or what it returned before if none of `files` has changed since.

    A cached array that cannot be read is made again; where none can be written, it is done
    without. Writing is atomic, so two processes may do it at once.

    Args:
      kind: folder in the cache directory.
      files: what the array is made from; path, size and time of change identify each, or what the
        service of a URL says of its version.
      what: tells apart several arrays made from the same files.
      make: makes the array.

    Raises:
      NoSuchFile: one of the files is not there.
    """
    lines = [what]
    try:
        lines += [fingerprint(file) for file in files]
    except FileNotFoundError as error:
        raise NoSuchFile(f"there is no file {error.filename}") from None
    name = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32] + ".npy"
    path = cache_dir() / kind / name
    try:
        return np.load(path)
    except (OSError, ValueError, EOFError):  # none there, or damaged
        pass
    array = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as stream:
                np.save(stream, array)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError:
        pass
    return array

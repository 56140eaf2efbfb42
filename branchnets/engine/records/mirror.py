"""Files that grow, of a run directory where nothing can be appended to: an object store's."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from branchnets.errors import StorageError
from branchnets.storage import RemotePath

#: Seconds between two uploads; a file is uploaded whole.
EVERY = 30.0


class Mirror:
    """A local folder whose files are uploaded whole where they have changed.

    Args:
      place: where they go.
      pattern: of the files that are there already and may grow: those are fetched.
      check: raises a UserError where nothing is to be written any more; asked before every upload.

    Attributes:
      folder: the local one, which may be written to at any time.

    Raises (also from the methods):
      StorageError: the files cannot be read or written.
    """

    def __init__(
        self, place: RemotePath, pattern: str, check: Callable[[], None] = lambda: None
    ) -> None:
        self._place, self._check = place, check
        self._stamps: dict[str, tuple[int, int]] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="branchnets-"))
        self._uploaded = time.monotonic()
        try:
            for file in place.glob(pattern):
                (self.folder / file.name).write_bytes(file.read_bytes())
                self._stamps[file.name] = _stamp(self.folder / file.name)
        except BaseException:
            self.discard()
            raise

    def tick(self) -> None:
        """Uploads what has changed if that is due; one that fails is made up for the next time."""
        if time.monotonic() - self._uploaded > EVERY:
            try:
                self.upload()
            except StorageError:
                self._uploaded = time.monotonic()

    def upload(self) -> None:
        """Uploads what has changed."""
        changed = {
            file: stamp
            for file in sorted(self.folder.iterdir())
            if self._stamps.get(file.name) != (stamp := _stamp(file))
        }
        if changed:
            self._check()
        for file, stamp in changed.items():
            (self._place / file.name).write_bytes(file.read_bytes())
            self._stamps[file.name] = stamp
        self._uploaded = time.monotonic()

    def discard(self) -> None:
        """Deletes the local folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _stamp(file: Path) -> tuple[int, int]:
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns

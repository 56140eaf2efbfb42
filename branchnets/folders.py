"""Folders that are written as a whole or not at all, whatever is in them.

On an object store every file is written whole, the one that tells what the folder is comes last,
and what is left of an older folder is deleted after that: what breaks off between leaves files of
both, and the older one's record until the last. Writing again makes it whole.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from branchnets.errors import StorageError, UserError
from branchnets.storage import AnyPath, RemotePath, as_path, first_free


@dataclasses.dataclass(frozen=True)
class Kind:
    """What such a folder holds.

    Attributes:
      noun: what it is called in messages.
      error: raised where it cannot be written.
      ours: a folder -> the names of the files in it that are of an older one of this kind, which
        may be replaced; None where there is none.
      keep: whether files of others stay in the folder; without it such a folder is refused.
    """

    noun: str
    error: type[UserError]
    ours: Callable[[AnyPath], Collection[str] | None]
    keep: bool = False

    def cannot(self, place: AnyPath, error: OSError) -> UserError:
        """The error for a folder that the system does not let be written."""
        reason = error.strerror or str(error)
        return self.error(f"{place} cannot be written: {reason}. Choose another --out.")


def check(folder: str | os.PathLike[str] | RemotePath, kind: Kind) -> AnyPath:
    """Where a folder will be written; raises now what would otherwise fail after the work.

    Folders above it are made if need be; the folder itself is not touched. On an object store a
    small file is written beside it, and deleted.

    Raises:
      kind.error: it cannot be written, or holds something else.
    """
    place = _checked(folder, kind)
    if isinstance(place, RemotePath):
        trial = place.beside(f".{place.name}.{uuid.uuid4().hex}")
        try:
            trial.write_bytes(b"")
            trial.unlink(missing_ok=True)
        except OSError as error:
            raise kind.cannot(place, error) from error
    return place


def _checked(folder: str | os.PathLike[str] | RemotePath, kind: Kind) -> AnyPath:
    place = as_path(folder)
    if isinstance(place, RemotePath):
        try:
            _refuse_others(place, kind)
        except OSError as error:
            raise kind.cannot(place, error) from error
        return place
    return _check_local(place.absolute(), kind)


def _check_local(place: Path, kind: Kind) -> Path:
    if place.is_symlink():
        place = place.resolve()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with alone(place.parent):
            _refuse_others(place, kind)
            if place.is_dir() and not os.access(place, os.W_OK | os.X_OK):
                raise PermissionError(13, "Permission denied")
        os.rmdir(_temporary(place))
    except OSError as error:
        raise kind.cannot(place, error) from error
    return place


def write(
    folder: str | os.PathLike[str] | RemotePath, files: Mapping[str, bytes], kind: Kind
) -> AnyPath:
    """Writes a folder beside its place and moves it there when it is whole.

    An older one is replaced. Where ``kind.keep`` says so, files that are not of it stay; one that
    has the name of a new file stays as ``NAME.old``. Of two processes, the later one wins.

    Args:
      folder: made if need be.
      files: name -> contents; the last tells what the folder is.
      kind: what it holds.

    Returns:
      The folder.

    Raises:
      kind.error: it cannot be written; what was there before is untouched, but on an object store
        may be replaced in part, which the message says.
    """
    place = _checked(folder, kind)
    try:
        if isinstance(place, RemotePath):
            _write_remote(place, files, kind)
            return place
        new = _temporary(place)
        try:
            for name, data in files.items():
                (new / name).write_bytes(data)
            umask = os.umask(0)
            os.umask(umask)
            new.chmod(0o777 & ~umask)  # temporary folders are private
            with alone(place.parent):
                _refuse_others(place, kind)  # again: the work may have taken hours
                _replace(place, new, kind)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
    except OSError as error:
        raise kind.cannot(place, error) from error
    return place


@contextlib.contextmanager
def alone(path: Path, seconds: float = 10.0) -> Iterator[None]:
    """Holds a file or a folder against other processes that ask for it in this way.

    Where the file system knows no locks, or another process holds it for long, it is done without.

    Args:
      path: nothing is written to it.
      seconds: to wait at most.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        end = time.monotonic() + seconds
        while True:
            try:
                # The lock belongs to the open file: it ends with the process, however that ends.
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    break
                time.sleep(0.02)
            except OSError:
                break
        yield
    finally:
        os.close(handle)


def _write_remote(place: RemotePath, files: Mapping[str, bytes], kind: Kind) -> None:
    ours = set(kind.ours(place) or ())
    there = {path.name: path for path in place.iterdir()}
    for name, path in there.items():
        if name in files and name not in ours:
            path.copy(place / first_free(f"{name}.old", "", there.__contains__, ""))
    for number, (name, data) in enumerate(files.items()):
        try:
            (place / name).write_bytes(data)
        except StorageError as error:
            if not number or not there:
                raise
            reason = (
                f"{error.strerror}. It holds {number} of {len(files)} new files among older ones"
            )
            raise StorageError(f"{place / name}: {reason}", reason) from error
    for name in ours - set(files):
        (place / name).unlink(missing_ok=True)


def _refuse_others(place: AnyPath, kind: Kind) -> None:
    if not place.exists():
        return
    if not place.is_dir():
        raise kind.error(f"{place} is a file; choose another --out.")
    found = sorted(path.name for path in place.iterdir())
    ours = kind.ours(place)
    if found and ours is None:
        raise kind.error(
            f"{place} is not empty and holds no {kind.noun}, so it is left alone; choose another "
            "--out."
        )
    others = [name for name in found if name not in (ours or ())]
    if others and not kind.keep:
        raise kind.error(
            f"{place} holds {others[0]}, which is not of the {kind.noun} there, so it is left "
            "alone; choose another --out."
        )


def _replace(place: Path, new: Path, kind: Kind) -> None:
    """Puts a folder where an older one may be; if that fails, the older one is back there."""
    if not place.exists():
        os.rename(new, place)
        return
    ours = kind.ours(place) or ()
    old = _temporary(place)
    try:
        os.rename(place, old)  # an empty folder may be renamed onto
    except BaseException:
        os.rmdir(old)
        raise
    try:
        os.rename(new, place)
    except BaseException:
        os.rename(old, place)
        raise
    others = [path for path in old.iterdir() if path.name not in ours]
    for other in sorted(others, key=lambda path: (os.path.lexists(place / path.name), path.name)):
        _keep(other, place, kind)  # those whose names are free keep them
    shutil.rmtree(old, ignore_errors=True)


def _keep(other: Path, place: Path, kind: Kind) -> None:
    """Moves what is not of the older folder into the new one, under a name that is free there."""

    def taken(name: str) -> bool:
        return os.path.lexists(place / name)

    name = other.name
    if taken(name):
        name = first_free(f"{name}.old", "", taken, "")
    try:
        os.rename(other, place / name)
    except OSError as error:
        raise kind.error(
            f"{place} is written, but {other.name}, which was there, could not be moved into it: "
            f"{error.strerror}. It is whole in {other.parent}."
        ) from error


def _temporary(place: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}."))

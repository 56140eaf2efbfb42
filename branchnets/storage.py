"""Files by path or by URL: local ones as `pathlib` has them, `gs://` and others through fsspec.

A URL needs fsspec and what its scheme needs: `pip install ".[gcs]"` for `gs://`. An object store
has no folders, no renaming and no appending: a folder is there as long as something is in it, a
file is written whole or not at all, and what is moved is copied and then deleted.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from branchnets import service
from branchnets.errors import ConfigError, StorageError

# What orbax reads and writes itself goes the same way where TensorFlow is installed, too.
os.environ.setdefault("EPATH_USE_TF", "0")

Result = TypeVar("Result")
Item = TypeVar("Item")

_AT_ONCE = 32  # requests

# What gcsfs logs with a traceback is raised, too, and told by an error.
if (_logger := logging.getLogger("gcsfs")).level == logging.NOTSET:
    _logger.setLevel(logging.CRITICAL)


class RemotePath:
    """A URL with the methods of a path that are needed here; each asks the server.

    Args:
      url: scheme and path.
      info: what a listing said of it, which then need not be asked for.

    Raises (from the methods):
      FileNotFoundError: there is nothing of that name.
      StorageError: it cannot be read or written, or there is no such bucket.
    """

    def __init__(self, url: str, info: Mapping[str, Any] | None = None) -> None:
        self._scheme, separator, self._rest = url.partition("://")
        if not separator:
            raise ValueError(f"{url!r} is no URL")
        self._info = info

    def __str__(self) -> str:
        return f"{self._scheme}://{self._rest}"

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and str(self) == str(other)

    def __lt__(self, other: RemotePath) -> bool:
        return str(self) < str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __truediv__(self, part: str) -> RemotePath:
        if is_url(part):  # as an absolute path would
            return RemotePath(part)
        return RemotePath(f"{self._scheme}://{self._rest.rstrip('/')}/{part}")

    @property
    def scheme(self) -> str:
        """What stands before "://"."""
        return self._scheme

    @property
    def bucket(self) -> str:
        """What the rest is in."""
        return self._rest.partition("/")[0]

    @property
    def name(self) -> str:
        """The last part."""
        return PurePosixPath(self._rest).name

    @property
    def parent(self) -> RemotePath:
        """What it is in."""
        return RemotePath(f"{self._scheme}://{PurePosixPath(self._rest).parent}")

    def beside(self, name: str) -> RemotePath:
        """Something else in what it is in; of a bucket itself, something in it."""
        return self / name if "/" not in self._rest else self.parent / name

    def resolve(self) -> RemotePath:
        """Itself: there are no links."""
        return self

    # Reading

    def exists(self) -> bool:
        """Whether there is a file or a folder of that name."""
        return self._kind() is not None

    def is_file(self) -> bool:
        """Whether it is a file."""
        return self._kind() == "file"

    def is_dir(self) -> bool:
        """Whether there is something in it."""
        return self._kind() == "directory"

    def _kind(self) -> str | None:
        try:
            return str(self.info()["type"])
        except FileNotFoundError:
            return None

    def info(self) -> Mapping[str, Any]:
        """What the service says of it: "type" ("file" or "directory"), "size" and more."""
        if self._info is not None:
            return self._info
        return dict(self._ask("read", lambda fs, path: fs.info(path)))

    def read_bytes(self) -> bytes:
        """The whole file."""
        return bytes(self._ask("read", lambda fs, path: fs.cat_file(path)))

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The whole file as text."""
        return self.read_bytes().decode(encoding, errors)

    def read(self, start: int, length: int) -> bytes:
        """The bytes of a range; fewer where the file ends."""
        end = start + length
        return bytes(self._ask("read", lambda fs, path: fs.cat_file(path, start=start, end=end)))

    def iterdir(self) -> Iterator[RemotePath]:
        """What is in a folder, with what a listing tells; one request for a thousand names."""
        try:
            own, entries = self._ask("read", lambda fs, path: (path, fs.ls(path, detail=True)))
        except FileNotFoundError:
            return
        for entry in entries:
            found = str(entry["name"]).rstrip("/")
            if found != own.rstrip("/"):  # as a marker of the folder itself is called
                yield RemotePath(str(self / PurePosixPath(found).name), entry)

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """What is in a folder and has a name of a pattern without slashes."""
        return (path for path in self.iterdir() if fnmatchcase(path.name, pattern))

    def walk(self) -> dict[str, RemotePath]:
        """Every file below a folder by its relative path; one request for a thousand of them."""

        def find(fs: Any, path: str) -> dict[str, Any]:
            found = fs.find(path, detail=True)
            start = len(fs._strip_protocol(path).rstrip("/")) + 1
            return {name[start:]: info for name, info in found.items()}

        try:
            found = self._ask("read", find)
        except FileNotFoundError:
            return {}
        files = {name: info for name, info in found.items() if info["type"] == "file" and name}
        return {name: RemotePath(str(self / name), info) for name, info in files.items()}

    def names(self) -> list[str]:
        """Every file below a folder by its relative path, sorted.

        The folders in it are listed many at a time, and what is told of each file is not kept.
        """
        inside = list(self.iterdir())
        folders = [path for path in inside if path.is_dir()]
        found = [path.name for path in inside if not path.is_dir()]
        below = at_once(lambda folder: list(folder.walk()), folders)
        for folder, names in zip(folders, below, strict=True):
            found += [f"{folder.name}/{name}" for name in names]
        return sorted(found)

    def asked(self) -> RemotePath:
        """The same path, with what the service says of it now."""
        return RemotePath(str(self), self.info())

    def size(self) -> int:
        """In bytes."""
        return int(self.info()["size"])

    def version(self) -> str:
        """Changes when the file changes."""
        info = self.info()
        for name in ("generation", "crc32c", "etag", "ETag", "md5Hash"):
            if info.get(name):
                return f"{info.get('size')} {name} {info[name]}"
        return str(self._ask("read", lambda fs, path: fs.ukey(path)))

    # Writing

    def write_bytes(self, data: bytes) -> None:
        """Writes a file whole: a reader finds the old contents or the new ones."""
        self._ask("written", lambda fs, path: fs.pipe_file(path, data))

    def write_text(self, text: str, encoding: str = "utf-8") -> None:
        """Writes a text file whole."""
        self.write_bytes(text.encode(encoding))

    def mkdir(self, parents: bool = True, exist_ok: bool = True) -> None:
        """Does nothing: folders come with what is in them."""

    def copy(self, target: RemotePath) -> None:
        """Copies a file on the server."""

        def copy(fs: Any, path: str) -> None:
            fs.cp_file(path, fs._strip_protocol(str(target)))

        self._ask("copied", copy)

    def unlink(self, missing_ok: bool = False) -> None:
        """Deletes a file."""
        try:
            self._ask("deleted", lambda fs, path: fs.rm_file(path))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def _ask(self, what: str, question: Callable[[Any, str], Result]) -> Result:
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise StorageError(
                f"to use {self}: pip install fsspec (gs:// needs gcsfs too)"
            ) from None
        try:
            with service.first_contact(f"{self._scheme}://{self.bucket}"):
                # Kept by fsspec, for each process. Others write too: listings are not to be kept.
                system, path = url_to_fs(str(self), use_listings_cache=False)
                return question(system, path)
        except FileNotFoundError:
            if self._scheme == "gs" and not service.has_bucket(self.bucket):
                reason = service.no_bucket(self.bucket)
                raise StorageError(f"{self} cannot be {what}: {reason}", reason) from None
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self)) from None
        except ImportError as error:
            extra = '; pip install "branchnets[gcs]", or gcsfs' if self._scheme == "gs" else ""
            raise StorageError(f"to use {self}: {error}{extra}") from error
        except Exception as error:  # each service has errors of its own
            reason = service.reason(error, self._scheme)
            raise StorageError(f"{self} cannot be {what}: {reason}", reason) from error


def at_once(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """`function` of every item, many at a time: what they wait for is a server."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(function, items))


AnyPath = Path | RemotePath


def as_path(place: str | os.PathLike[str] | RemotePath) -> AnyPath:
    """A URL or a local path; `~` is the home directory.

    Raises:
      ConfigError: a URL without a bucket, or one with too few slashes.
    """
    if isinstance(place, RemotePath):
        return place
    text = os.fspath(place)
    scheme, separator, rest = text.partition("://")
    if not separator:
        if re.match(r"\w{2,}:/", text):
            raise ConfigError(f"{text} is neither a URL nor a path: write ://, as in gs://BUCKET.")
        return Path(text).expanduser()
    if not rest.strip("/") or (scheme == "gs" and rest.startswith("/")):
        raise ConfigError(f"{text} names no bucket; write gs://BUCKET/FOLDER.")
    return RemotePath(text.rstrip("/"))


def is_url(place: object) -> bool:
    """Whether a place is given by a URL."""
    return "://" in str(place)


def check_bucket(place: AnyPath) -> None:
    """Looks at the bucket itself, as orbax does before it deletes an older checkpoint in it.

    Raises:
      StorageError: that is not allowed, which would otherwise be told after the first saves; or
        there is no such bucket, or it cannot be found out.
    """
    if not isinstance(place, RemotePath):
        return
    bucket = place.bucket
    try:
        from google.api_core.exceptions import NotFound
        from google.cloud import storage
    except ImportError as error:
        raise StorageError(f'to use {place}: {error}; pip install "branchnets[gcs]"') from error
    try:
        storage.Client().get_bucket(bucket)
    except NotFound as error:
        raise StorageError(f"{service.no_bucket(bucket)}.") from error
    except Exception as error:
        reason = service.reason(error, place.scheme)
        raise StorageError(f"the bucket {bucket} cannot be looked at: {reason}.") from error


def first_free(stem: str, end: str, taken: Callable[[str], object], between: str = "-") -> str:
    """A name that is not taken: the given one, or it with a number from 2 on before its end.

    >>> first_free("run", ".json", ["run.json", "run-2.json"].__contains__)
    'run-3.json'
    """
    number, name = 1, f"{stem}{end}"
    while taken(name):
        number += 1
        name = f"{stem}{between}{number}{end}"
    return name


def move_folder(folder: AnyPath, target: AnyPath, mark: str) -> None:
    """Renames a folder; on an object store, so that one with the mark is whole at any time.

    Args:
      folder: to move.
      target: nothing is there.
      mark: the file that is written last into a folder, and tells that it is whole.
    """
    if isinstance(folder, Path):
        assert isinstance(target, Path)
        folder.rename(target)
        return
    assert isinstance(target, RemotePath)
    files = folder.walk()
    last = {name: files.pop(name) for name in [mark] if name in files}
    for name, file in [*files.items(), *last.items()]:
        file.copy(target / name)
    for file in [*last.values(), *files.values()]:
        file.unlink(missing_ok=True)


def remove_folder(folder: AnyPath) -> None:
    """Deletes a folder with all that is in it, as far as that goes."""
    if isinstance(folder, Path):
        shutil.rmtree(folder, ignore_errors=True)
        return
    for file in folder.walk().values():
        file.unlink(missing_ok=True)

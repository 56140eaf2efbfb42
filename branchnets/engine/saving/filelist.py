"""A list of a folder's files, written into it, by which missing or altered files are noticed."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Container, Mapping
from typing import Any

import google_crc32c

from branchnets.errors import StorageError
from branchnets.storage import AnyPath, RemotePath

NAME = "files.json"


def write(folder: AnyPath, *, leave_out: Container[str] = ()) -> None:
    """List all files under a folder, with their sizes in bytes and checksums.

    That is CRC-32 on a disk. An object store knows a CRC-32C of its own (in base 64) of whatever is
    in it, which costs a listing and no reading.

    Args:
      folder: The folder; the list goes into it under `NAME`.
      leave_out: Files that may change later, as paths relative to the folder.
    """
    files: Mapping[str, AnyPath]
    if isinstance(folder, RemotePath):
        files, castagnoli = folder.walk(), True
    else:
        files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
        castagnoli = False
    listed = {
        name: _size_and_checksum(file, castagnoli)
        for name, file in files.items()
        if name != NAME and name not in leave_out
    }
    (folder / NAME).write_text(_dump(listed))


def damage(folder: AnyPath) -> str | None:
    """Return what is wrong with a folder that has a list of files, or None if all is well.

    Raises:
      PermissionError, StorageError: A file may not be read, or the service fails, which says
        nothing about its contents.
    """
    name = NAME
    try:
        text = (folder / name).read_text()
        listed = json.loads(text)
        if text != _dump(listed):
            return f"{name} has other contents than were written"
        files = folder.walk() if isinstance(folder, RemotePath) else {}
        for name, expected in sorted(listed.items()):
            file = files.get(name, folder / name)
            size, checksum = _size_and_checksum(file, isinstance(expected[1], str))
            if size != expected[0]:
                return f"{name} has {size} bytes in place of {expected[0]}"
            if checksum != expected[1]:
                return f"{name} has other contents than were written"
    except FileNotFoundError:
        return f"{name} is missing"
    except (PermissionError, StorageError):
        raise
    except OSError as error:
        return f"{name} cannot be read ({error.strerror})"
    except (ValueError, TypeError, AttributeError, LookupError):
        return f"{NAME} is no list of files"
    return None


def all_there(folder: RemotePath) -> bool:
    """Whether a folder has a list, and every file of it with its size; contents are not read."""
    try:
        listed = json.loads((folder / NAME).read_text())
        files = folder.walk()
        return all(files[name].size() == size for name, (size, _) in listed.items())
    except StorageError:
        raise
    except (FileNotFoundError, ValueError, TypeError, AttributeError, LookupError):
        return False


def _dump(listed: Mapping[str, Any]) -> str:
    return json.dumps(listed, indent=1, sort_keys=True) + "\n"


def _size_and_checksum(file: AnyPath, castagnoli: bool = False) -> tuple[int, int | str]:
    """With the checksum of a disk's list, or that of an object store's: folders are copied."""
    if isinstance(file, RemotePath):
        if castagnoli:
            return file.size(), str(file.info()["crc32c"])
        data = file.read_bytes()
        return len(data), zlib.crc32(data)
    size = checksum = 0
    update = google_crc32c.extend if castagnoli else _crc32
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            size += len(block)
            checksum = update(checksum, block)
    if castagnoli:
        return size, base64.b64encode(checksum.to_bytes(4, "big")).decode()
    return size, checksum


def _crc32(checksum: int, block: bytes) -> int:
    return zlib.crc32(block, checksum)

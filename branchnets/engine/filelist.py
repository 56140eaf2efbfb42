"""A list of a folder's files, written into it, by which missing or altered files are noticed."""

from __future__ import annotations

import json
import zlib
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

NAME = "files.json"


def write(folder: Path, *, leave_out: Container[str] = ()) -> None:
    """List all files under a folder, with their sizes in bytes and CRC-32 checksums.

    Args:
      folder: The folder; the list goes into it under `NAME`.
      leave_out: Files that may change later, as paths relative to the folder.
    """
    files = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    listed = {
        name: _size_and_checksum(folder / name)
        for name in files
        if name != NAME and name not in leave_out
    }
    (folder / NAME).write_text(_dump(listed))


def damage(folder: Path) -> str | None:
    """Return what is wrong with a folder that has a list of files, or None if all is well.

    Raises:
      PermissionError: A file may not be read, which says nothing about its contents.
    """
    name = NAME
    try:
        text = (folder / name).read_text()
        listed = json.loads(text)
        if text != _dump(listed):
            return f"{name} has other contents than were written"
        for name, expected in sorted(listed.items()):
            size, checksum = _size_and_checksum(folder / name)
            if size != expected[0]:
                return f"{name} has {size} bytes in place of {expected[0]}"
            if checksum != expected[1]:
                return f"{name} has other contents than were written"
    except FileNotFoundError:
        return f"{name} is missing"
    except PermissionError:
        raise
    except OSError as error:
        return f"{name} cannot be read ({error.strerror})"
    except (ValueError, TypeError, AttributeError, LookupError):
        return f"{NAME} is no list of files"
    return None


def _dump(listed: Mapping[str, Any]) -> str:
    return json.dumps(listed, indent=1, sort_keys=True) + "\n"


def _size_and_checksum(file: Path) -> tuple[int, int]:
    size = checksum = 0
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            size += len(block)
            checksum = zlib.crc32(block, checksum)
    return size, checksum

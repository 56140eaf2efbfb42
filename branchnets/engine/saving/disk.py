"""The disk that checkpoints are written to: its space, and why something was not written."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from branchnets.errors import first_line
from branchnets.storage import AnyPath


def free(directory: AnyPath) -> int | None:
    """Bytes that are free on the disk of a directory, which need not exist yet; None: no limit."""
    if not isinstance(directory, Path):
        return None
    folder = next(p for p in (directory, *directory.parents) if p.exists())
    return shutil.disk_usage(folder).free


def reason(error: BaseException) -> str:
    """Why something could not be written, without the many names that orbax puts around it.

    >>> reason(ValueError("task 3: os_error 28: No space left on device [source locations]"))
    'No space left on device'
    """
    text = str(error).strip()
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES):
        if os.strerror(number) in text:
            return os.strerror(number)
    return first_line(text).removesuffix(".") or type(error).__name__

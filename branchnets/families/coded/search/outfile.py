"""The file of codewords: one codeword a line, line = class index."""

from __future__ import annotations

import os
import pathlib
import tempfile

import numpy as np

from branchnets.errors import UserError


def check_writable(path: pathlib.Path, force: bool) -> None:
    """Tells before the search what would be in the way after it.

    Raises:
      UserError: there is a file already and not `force`, or none can be written there.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; --out names the file to write")
    if path.exists() and not force:
        raise UserError(f"{path} exists; --force overwrites it")
    if not path.parent.is_dir():
        raise UserError(f"cannot write {path}: there is no folder {path.parent}")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
        if path.exists():
            with path.open("r+b"):
                pass
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def write(path: pathlib.Path, codewords: np.ndarray) -> None:
    """Writes codewords [K, N]; the file appears whole or not at all.

    Raises:
      UserError: it cannot be written.
    """
    text = "".join("".join(map(str, word)) + "\n" for word in codewords)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror}") from error

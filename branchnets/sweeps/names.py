"""Swept values as text: on a command line, in the name of a directory, on an axis."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from branchnets.errors import ConfigError

_LONGEST = 160  # of a directory's name; file systems end at 255 bytes
_PAIRS = {")": "(", "]": "[", "}": "{"}


def split(text: str) -> list[str]:
    """Splits at the commas that stand in no bracket and no quotation marks.

    Raises:
      ConfigError: an empty part, or a bracket or quotation mark without its partner.

    >>> split('("a.txt",),("b.txt", "c.txt")')
    ['("a.txt",)', '("b.txt", "c.txt")']
    """
    parts, begin, opened, quote = [], 0, [], ""
    for index, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in _PAIRS.values():
            opened.append(letter)
        elif letter in _PAIRS:
            if not opened or opened.pop() != _PAIRS[letter]:
                raise ConfigError(f"{text!r}: {letter!r} closes nothing.")
        elif letter == "," and not opened:
            parts.append(text[begin:index].strip())
            begin = index + 1
    if quote or opened:
        raise ConfigError(f"{text!r}: {quote or opened[-1]!r} is not closed.")
    parts.append(text[begin:].strip())
    if not all(parts):
        raise ConfigError(f"{text!r} has an empty value; separate values by single commas.")
    return parts


def word(value: Any) -> str:
    """A typed value as the command line takes it: ``true``, ``0.05``, ``('a.txt',)``."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return value if isinstance(value, str) else repr(value)


def label(value: Any) -> str:
    """A value as a person reads it: ``true``, ``1``, ``a.txt+b.txt``."""
    if isinstance(value, tuple | list):
        return "+".join(map(label, value)) or "none"
    if isinstance(value, float):
        return f"{value:.12g}"
    return word(value)


def directory(values: Mapping[str, Any]) -> str:
    """The name of the directory of a cell: ``mu=1,p_drop=0.05,seed=0``.

    What a file name cannot hold is left out, with a short hash of the whole value in its place,
    so that two values never share a name.
    """
    name = ",".join(f"{field}={_part(value)}" for field, value in values.items()) or "base"
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 9]}-{_hash(name)}"


def _part(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "+".join(map(_part, value)) or "none"
    text = label(value)
    if re.fullmatch(r"[\w.-]+", text, re.ASCII):
        return text
    last = re.sub(r"[^\w.-]+", "_", re.split(r"[/\\]", text)[-1], flags=re.ASCII)
    return f"{last}-{_hash(text)}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]

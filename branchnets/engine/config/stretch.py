"""Steps of a run as "START:STOP", read without JAX."""

from __future__ import annotations

import re

from branchnets.errors import ConfigError


def parse(text: str | None) -> tuple[int, int] | None:
    """(START, STOP) of "START:STOP"; None where nothing is to be traced.

    Raises:
      ConfigError: not two whole numbers of which the second is larger.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d+):(\d+)", text)
    if not found or int(found[1]) >= int(found[2]):
        raise ConfigError(
            f"profile is {text!r}; it must be START:STOP, two whole numbers of steps with START "
            "below STOP, such as --config.profile=20:25 for five steps after the first twenty."
        )
    return int(found[1]), int(found[2])

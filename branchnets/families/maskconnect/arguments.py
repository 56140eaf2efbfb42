"""What config files ask for by name or by number, checked before a network is built."""

from __future__ import annotations

from typing import Any

from branchnets.errors import unknown
from branchnets.families.maskconnect.zoo import BUILDERS


def fan_in(model: str, k: Any = None) -> int:
    """K of a registered network: ``k``, or where that is None, the network's own.

    Args:
      model: its name.
      k: as it was given, of any type.

    Raises:
      ConfigError: an unknown network, or a K that is no whole number from 1 to C.

    >>> fan_in("maskconnect101_w4_c64")
    32
    """
    if model not in BUILDERS:
        raise unknown("model of MaskConnect", model, BUILDERS)
    builder = BUILDERS[model]
    if k is not None:
        builder(num_classes=1, fan_in=k)  # refuses what it cannot read
    return builder.fan_in if k is None else int(k)

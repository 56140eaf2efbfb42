"""What the paper varies: its names of the fields and the values of its ablations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: The paper's name -> path of the config field.
ALIASES: Mapping[str, str] = {
    "mu": "coded.mu",
    "p_drop": "model.drop_rate",
    "exponent": "coded.exponent",
    "aggregate": "model.aggregate",
    "normalize": "model.normalize",
    "block_gradients": "coded.block_gradients",
    "schemes": "coded.schemes",
}

#: Figs. 5 and 6, the exponent of 4.5, concatenation of 4.3.1, the normalisation of 3.1.1 left out,
#: and footnote 5's blocking of gradients.
SWEEPS: Mapping[str, tuple[Any, ...]] = {
    "mu": (1.0, 2.0, 4.0, 6.0, 8.0),
    "p_drop": (0.0, 0.05, 0.1, 0.2),
    "exponent": (4.0, 2.0, 1.0),
    "aggregate": ("sum", "concat"),
    "normalize": (True, False),
    "block_gradients": (False, True),
}

"""ImageNet-2012: what a network needs to know of it.

Its 1.28 million images do not fit on a device, and this version has no streamed input: a config
for it can be described, built and tried out with `:smoke`, but not trained.
"""

from __future__ import annotations

from typing import Any

from branchnets.data.base import Dataset, DataSpec
from branchnets.errors import UserError

NUM_CLASSES = 1000
SIZE = 224


def spec(cfg: Any = None) -> DataSpec:
    """224x224 colour images of 1,000 classes, which are named by their index."""
    del cfg
    return DataSpec((SIZE, SIZE, 3), NUM_CLASSES, tuple(map(str, range(NUM_CLASSES))))


def read(cfg: Any = None) -> Dataset:
    """Raises UserError: reading ImageNet needs streamed input."""
    del cfg
    raise UserError(
        "imagenet2012 does not fit on a device, and this version cannot stream it yet. "
        "CONFIG.py:smoke runs the same network and recipe on made-up images; "
        "python -m branchnets.tools.describe --config=CONFIG.py prints its parameters."
    )

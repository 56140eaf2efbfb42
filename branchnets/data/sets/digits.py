"""1,797 handwritten digits, 8x8 grey, inside the package.

The test set of "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, UCI Machine
Learning Repository, 1998, doi:10.24432/C50P49, licence CC BY 4.0: the same images, in the same
order, that scikit-learn ships. Pixels count the black dots of a 4x4 block, 0..16; they are stored
as such in `digits.npz` and scaled to 0..255 here.
"""

from __future__ import annotations

from importlib import resources
from types import SimpleNamespace
from typing import Any

import numpy as np

from branchnets.data.base import Dataset, DataSpec, Split, field, hold_out

CLASS_NAMES = tuple("0123456789")
TEST_SIZE = 360
VALIDATION_SIZE = 180  # unless the config says otherwise (0 = none)
_TEST_SEED = 2022  # fixed: the test images are the same whatever the config's seeds

# Of the default training split (1,257 images at 8x8, validation and test held out).
MEAN = (0.3057,)
STD = (0.3761,)


def raw() -> tuple[np.ndarray, np.ndarray]:
    """The stored arrays: images uint8 [1797, 8, 8] in 0..16 and labels uint8 [1797]."""
    with (resources.files("branchnets.data.sets") / "digits.npz").open("rb") as file:
        arrays = np.load(file)
        return arrays["images"], arrays["labels"]


def spec(cfg: Any = None) -> DataSpec:
    """8x8x1 images of ten classes."""
    return DataSpec((8, 8, 1), len(CLASS_NAMES), CLASS_NAMES)


def read(cfg: Any = None) -> Dataset:
    """The digits as train, validation and test.

    The test split (36 of each class) never changes. Where `cfg.validation_size` is empty, a
    validation split of 180 is held out of the rest by `cfg.split_seed`.
    """
    images, labels = raw()
    pixels = np.round(images.astype(np.float32) * (255 / 16)).astype(np.uint8)[..., None]
    train, test = hold_out(Split(pixels, labels), TEST_SIZE, _TEST_SEED)
    splits = {"train": train, "test": test}
    if getattr(cfg or SimpleNamespace(), "validation_size", None) is None:
        seed = int(field(cfg, "split_seed", 0))
        splits["train"], splits["validation"] = hold_out(train, VALIDATION_SIZE, seed)
    return Dataset("digits", CLASS_NAMES, splits, MEAN, STD)

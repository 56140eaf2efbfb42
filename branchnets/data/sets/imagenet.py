"""ImageNet-2012: 1,281,167 training and 50,000 test images of 1,000 classes, streamed.

O. Russakovsky et al., "ImageNet large scale visual recognition challenge", IJCV 2015. The test
split here is the published validation split, whose labels are public. Images come from a directory
of tfds (`imagenet2012`), or from folders that are named by WordNet identifiers:

    DIR/train/n01440764/*.JPEG      DIR/val/n01440764/*.JPEG      ...
"""

from __future__ import annotations

import functools
from typing import Any

from branchnets.data.base import Dataset, DataSpec
from branchnets.data.sets.published import Published, table

SIZE = 224
#: Examples of every split.
EXAMPLES = {"train": 1_281_167, "test": 50_000}


@functools.cache
def classes() -> dict[str, str]:
    """WordNet identifier -> English name, of the 1,000 classes in label order."""
    return {wnid: name for wnid, name in table("imagenet2012.tsv")}


@functools.cache
def published() -> Published:
    """What is known of it without its files."""
    return Published(
        "imagenet2012",
        tuple(classes()),
        tuple(classes().values()),
        SIZE,
        "train/n01440764/*.JPEG and val/n01440764/*.JPEG, a folder for each of the 1,000 classes",
        unlabelled=("test",),
    )


def spec(cfg: Any = None) -> DataSpec:
    """Colour images of 1,000 classes, 224x224 where the config says nothing else."""
    return published().spec(cfg)


def read(cfg: Any = None) -> Dataset:
    """The splits "train" and "test"; see :meth:`branchnets.data.sets.published.Published.read`."""
    return published().read(cfg)

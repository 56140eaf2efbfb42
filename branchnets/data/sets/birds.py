"""Caltech-UCSD Birds-200-2011: 5,994 training and 5,794 test photographs of 200 species, streamed.

C. Wah, S. Branson, P. Welinder, P. Perona and S. Belongie, "The Caltech-UCSD Birds-200-2011
dataset", California Institute of Technology, 2011. From a directory of tfds (`caltech_birds2011`),
from the unpacked archive CUB_200_2011.tgz, or from folders:

    DIR/train/001.Black_footed_Albatross/*.jpg      DIR/test/001.Black_footed_Albatross/*.jpg   ...
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from branchnets.data.base import Dataset, DataSpec
from branchnets.data.sets.published import Published, table
from branchnets.data.stored.records import FileRecords, Records
from branchnets.errors import DataError
from branchnets.storage import AnyPath

SIZE = 224
#: Examples of every split.
EXAMPLES = {"train": 5_994, "test": 5_794}


@functools.cache
def published() -> Published:
    """What is known of it without its files."""
    keys = tuple(row[0] for row in table("caltech_birds2011.tsv"))
    return Published(
        "caltech_birds2011",
        keys,
        tuple(key.partition(".")[2].replace("_", " ") for key in keys),
        SIZE,
        "images.txt and so on, as CUB_200_2011.tgz unpacks to, or "
        "DIR/train/001.Black_footed_Albatross/*.jpg and DIR/test/001.Black_footed_Albatross/*.jpg",
        archive=("images.txt", read_archive),
    )


def spec(cfg: Any = None) -> DataSpec:
    """Colour images of 200 species, 224x224 where the config says nothing else."""
    return published().spec(cfg)


def read(cfg: Any = None) -> Dataset:
    """The splits "train" and "test"; see :meth:`branchnets.data.sets.published.Published.read`."""
    return published().read(cfg)


def read_archive(root: AnyPath) -> Mapping[str, Records]:
    """The records of the unpacked archive, in the order of its numbers.

    Args:
      root: with `images.txt` (number, path below `images/`) and `train_test_split.txt` (number, 1
        for training).

    Raises:
      DataError: one of the files is missing or does not fit the other.
    """
    paths, parts = (_numbered(root / name) for name in ("images.txt", "train_test_split.txt"))
    if paths.keys() != parts.keys():
        raise DataError(f"{root}: images.txt and train_test_split.txt number different images")
    labels = {key: label for label, key in enumerate(published().keys)}
    found = {}
    for split, mark in (("train", "1"), ("test", "0")):
        names = [path for number, path in paths.items() if parts[number] == mark]
        strange = [name for name in names if name.partition("/")[0] not in labels]
        if strange or not names:
            what = f"{strange[0]} is of no known class" if strange else f"no image is for {split}"
            raise DataError(f"{root}: {what}; unpack CUB_200_2011.tgz again")
        own = np.array([labels[name.partition("/")[0]] for name in names])
        found[split] = FileRecords(root / "images", names, own)
    return found


def _numbered(file: AnyPath) -> dict[str, str]:
    try:
        rows = [line.split(maxsplit=1) for line in file.read_text().splitlines() if line.strip()]
        return {number: rest.strip() for number, rest in rows}
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read as lines of number and value: {error}") from None

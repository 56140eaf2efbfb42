"""In which of its forms a data set lies in `data.data_dir`: tfds records, or a tree of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from branchnets.data.base import field
from branchnets.data.stored.tfds_info import DatasetNotFound, find_dataset, resolve_data_dir
from branchnets.storage import AnyPath

#: What a tree of images has at its top.
TREE = ("train", "train.csv")


def locate(name: str, cfg: Any, layout: str, marks: Sequence[str] = TREE) -> tuple[AnyPath, bool]:
    """The place of a data set that may lie in either form.

    Args:
      name: as tfds calls it.
      cfg: `data_dir` (else TFDS_DATA_DIR, else tfds's default) and `data_dir_flag`, what the
        message calls it where a tool has a flag of its own for it.
      layout: of the tree, for the message.
      marks: files or folders of which a tree has at least one.

    Returns:
      (directory, True) of tfds records, or (root, False) of a tree.

    Raises:
      DatasetNotFound: neither is there; the message says how both should lie.
    """
    data_dir = field(cfg, "data_dir")
    flag = field(cfg, "data_dir_flag", "--config.data.data_dir")
    try:
        return find_dataset(name, data_dir, flag), True
    except DatasetNotFound as error:
        root, _ = resolve_data_dir(data_dir)
        if any((root / part).exists() for part in marks):
            return root, False
        raise DatasetNotFound(f"{error}\nImage files are read too: DIR/{layout}.") from None

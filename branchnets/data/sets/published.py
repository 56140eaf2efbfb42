"""Published sets with classes that are known beforehand, from tfds records or from image folders.

Both forms give the same labels and class names, so a config runs unchanged on either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from branchnets.data.base import Dataset, DataSpec, field
from branchnets.data.prepare import reshaped
from branchnets.data.sets.locate import TREE, locate
from branchnets.data.statistics import IMAGENET_MEAN, IMAGENET_STD
from branchnets.data.stored.held import as_splits
from branchnets.data.stored.listing import index
from branchnets.data.stored.records import Records
from branchnets.data.stored.tfds import DatasetInfo, labelled_splits
from branchnets.errors import DataError
from branchnets.storage import AnyPath


@dataclass(frozen=True)
class Published:
    """What is known of a set without its files.

    Attributes:
      name: as the registry and tfds call it.
      keys: K, what folders and tfds call the classes, in label order.
      class_names: K, what they are called here.
      size: side in pixels of the images where the config does not say.
      layout: of the folders, for messages.
      streams: whether images are decoded as they are needed where the config does not say.
      label: the feature of tfds's records that is the class.
      mean: per channel, pixels from 0 to 1.
      std: likewise.
      archive: of a set that is published in folders of its own: a file that is among them, and
        what makes records of them: root -> split -> records.
      unlabelled: splits of tfds's whose records have no labels.
    """

    name: str
    keys: tuple[str, ...]
    class_names: tuple[str, ...]
    size: int
    layout: str
    streams: bool = True
    label: str = "label"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    archive: tuple[str, Callable[[AnyPath], Mapping[str, Records]]] | None = None
    unlabelled: tuple[str, ...] = ()

    def spec(self, cfg: Any = None) -> DataSpec:
        """Colour images `size` pixels square of the K classes; no file is read."""
        del cfg
        return DataSpec((self.size, self.size, 3), len(self.class_names), self.class_names)

    def read(self, cfg: Any = None) -> Dataset:
        """The splits "train" and "test", and "validation" where the files have one beside them.

        Args:
          cfg: `data_dir`, with a directory of tfds or with folders; `stream`; `image_size`.

        Raises:
          DataError: neither is there, or its classes are others; the message says what to do.
        """
        marks = TREE if self.archive is None else (*TREE, self.archive[0])
        place, prepared = locate(self.name, cfg, self.layout, marks)
        records = self._prepared(place) if prepared else self._listed(place)
        image_shape = reshaped(self.spec(), cfg, cropped=False).image_shape
        streamed = bool(field(cfg, "stream", self.streams))
        splits = as_splits(self.name, records, image_shape, streamed)
        return Dataset(self.name, self.class_names, splits, self.mean, self.std)

    def _listed(self, root: AnyPath) -> Mapping[str, Records]:
        if self.archive is not None and (root / self.archive[0]).exists():
            return self.archive[1](root)
        try:
            return index(root, self.keys).splits
        except DataError as error:
            raise DataError(f"{error}. {self.name} is read from DIR/{self.layout}.") from error

    def _prepared(self, directory: AnyPath) -> Mapping[str, Records]:
        info = DatasetInfo.read(directory)
        label = info.label_feature(self.label)
        given = info.class_names(label)
        numbered = tuple(map(str, range(len(self.keys))))  # as tfds's where it kept no names
        if given not in (self.keys, self.class_names, numbered):
            raise DataError(
                f"{directory} has {len(given)} classes, {given[0]!r} and so on, which are not the "
                f"{len(self.keys)} of {self.name}; data.name=tfds/NAME reads any set of tfds"
            )
        return labelled_splits(directory, label, self.unlabelled)


def table(file: str) -> list[list[str]]:
    """The rows of a table in the package, comments and the line of titles left out."""
    text = (resources.files("branchnets.data.sets") / file).read_text(encoding="utf-8")
    return [line.split("\t") for line in text.splitlines() if not line.startswith("#")][1:]

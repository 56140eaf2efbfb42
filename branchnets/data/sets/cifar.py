"""CIFAR-10 and CIFAR-100 (A. Krizhevsky, 2009), as tfds prepares them, or in folders of images."""

from __future__ import annotations

from typing import Any

from branchnets.data.base import Dataset, DataSpec, field
from branchnets.data.sets.locate import locate
from branchnets.data.sets.published import Published
from branchnets.data.stored.tfds import DatasetInfo, read_split
from branchnets.errors import DataError

#: Examples of every split, of both.
EXAMPLES = {"train": 50_000, "test": 10_000}

_SHAPE = (32, 32, 3)
_MEAN_STD = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2673, 0.2564, 0.2762)),
}
# Known without the files, so that a model can be described where the data is not.
CIFAR10_CLASSES = tuple(
    """
    airplane automobile bird cat deer dog frog horse ship truck
    """.split()
)
CIFAR100_FINE = tuple(
    """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
    crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house
    kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
    mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree
    plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark
    shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table
    tank telephone television tiger tractor train trout tulip turtle wardrobe whale
    willow_tree wolf woman worm
    """.split()
)
CIFAR100_COARSE = tuple(
    """
    aquatic_mammals fish flowers food_containers fruit_and_vegetables
    household_electrical_devices household_furniture insects large_carnivores
    large_man-made_outdoor_things large_natural_outdoor_scenes large_omnivores_and_herbivores
    medium_mammals non-insect_invertebrates people reptiles small_mammals trees vehicles_1
    vehicles_2
    """.split()
)

_FEATURES = {
    "cifar10": {"label": ("label", CIFAR10_CLASSES), "fine": ("label", CIFAR10_CLASSES)},
    "cifar100": {
        "label": ("label", CIFAR100_FINE),
        "fine": ("label", CIFAR100_FINE),
        "coarse": ("coarse_label", CIFAR100_COARSE),
    },
}


def _feature(name: str, cfg: Any) -> tuple[str, tuple[str, ...]]:
    """The record's field that holds the label, and the class names."""
    label = field(cfg, "label", "label")
    if label not in _FEATURES[name]:
        raise DataError(f"data.label={label!r}: {name} has {', '.join(map(repr, _FEATURES[name]))}")
    return _FEATURES[name][label]


def spec(name: str, cfg: Any = None) -> DataSpec:
    """32x32x3 images of 10 classes, or of 100 (CIFAR-100, fine) or 20 (coarse)."""
    _, classes = _feature(name, cfg)
    return DataSpec(_SHAPE, len(classes), classes)


def read(name: str, cfg: Any = None) -> Dataset:
    """Read "cifar10" or "cifar100" with its train and test splits.

    Args:
      name: which of the two.
      cfg: `data_dir`, where prepared datasets are (else TFDS_DATA_DIR, else tfds's default), or
        folders of images, train/CLASS/ and test/CLASS/; `stream`;
        `label`, for CIFAR-100 "fine" (the default) or "coarse"; and `data_dir_flag`, what the
        message calls `data_dir` where a tool has a flag of its own for it.

    Raises:
      DatasetNotFound: it has not been prepared; the message has the command that does.
    """
    feature, names = _feature(name, cfg)
    mean, std = _MEAN_STD[name]
    layout = f"train/{names[0]}/*.png and test/{names[0]}/*.png"
    place, prepared = locate(name, cfg, layout)
    if not prepared or field(cfg, "stream", False):
        return Published(
            name, names, names, 32, layout, streams=False, label=feature, mean=mean, std=std
        ).read(cfg)
    classes = DatasetInfo.read(place).class_names(feature)
    splits = {split: read_split(place, split, label=feature) for split in ("train", "test")}
    return Dataset(name, classes, splits, mean, std)

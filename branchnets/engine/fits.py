"""Whether a data set can be given to the network of a run."""

from __future__ import annotations

import itertools

from ml_collections import ConfigDict

from branchnets import data
from branchnets.engine.records.rundir import RunDir
from branchnets.errors import ConfigError


def trained_spec(run_dir: RunDir, trained: ConfigDict) -> data.DataSpec:
    """What the network was trained on, from the run itself: its data may have moved since."""
    saved = run_dir.derived().get("data", {})
    if not {"class_names", "image_shape"} <= saved.keys():
        return data.spec(None, trained.data)
    names = tuple(saved["class_names"])
    return data.DataSpec(tuple(saved["image_shape"]), len(names), names)


def check_fits(own: data.DataSpec, trained: ConfigDict, given: ConfigDict) -> None:
    """Refuses a data set that the network of a run cannot be given, before anything is read."""
    other = data.spec(None, given.data)
    if own.num_classes != other.num_classes:
        raise ConfigError(
            f"the run was trained for the {own.num_classes} classes of {trained.data.name}; "
            f"{given.data.name} has {other.num_classes}, so its labels mean something else."
        )
    same_channels = own.image_shape[2:] == other.image_shape[2:]
    resized = same_channels and given.eval.image_size is not None
    if resized or own.image_shape == other.image_shape:
        return
    hint = ""
    if same_channels:
        hint = (
            f" --config.data.image_size={own.image_shape[0]} resizes; --config.eval.image_size "
            "evaluates at any size."
        )
    raise ConfigError(
        f"the run was trained on images of shape {own.image_shape}; those of "
        f"{given.data.name} are {other.image_shape}.{hint}"
    )


def check_names(run_dir: RunDir, dataset: data.Dataset) -> None:
    """Refuses data whose labels mean something else; a run that kept no names takes any."""
    own = run_dir.derived().get("data", {}).get("class_names")
    if own is None or list(own) == list(dataset.class_names):
        return
    pairs = itertools.zip_longest(own, dataset.class_names)
    label, (expected, given) = next((i, pair) for i, pair in enumerate(pairs) if len(set(pair)) > 1)
    raise ConfigError(
        f"class {label} of the run is {_named(expected)}; that of the data set {dataset.name} is "
        f"{_named(given)}, so its labels mean something else. Give data with the run's classes, "
        "named as they were."
    )


def _named(name: str | None) -> str:
    return "none at all" if name is None else repr(name)

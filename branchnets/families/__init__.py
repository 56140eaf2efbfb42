"""One package per family, all of the same shape; ``create`` makes the one a config names."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

from branchnets.errors import unknown
from branchnets.families.base import Family
from branchnets.registry import FAMILIES


def config_fields(name: str) -> Mapping[str, Mapping[str, Any]]:
    """What a family adds to a config; see ``Family.fields``.

    Raises:
      ValueError: an unknown family.
    """
    return family_class(name).fields


def family_class(name: str) -> type[Family]:
    """The class of a family.

    Raises:
      ValueError: an unknown family.
    """
    if name not in FAMILIES:
        raise unknown("family", name, FAMILIES)
    return importlib.import_module(FAMILIES[name]).FAMILY


def create(config: Any, data_spec: Any) -> Family:
    """The family of a config, with its network built for a data set.

    Args:
      config: a config with ``family``, ``model``, ``loss`` and the family's own section.
      data_spec: what the network must fit: image_shape, num_classes, class_names.

    Raises:
      ValueError: an unknown family, model or field.
    """
    family = family_class(config.family).from_config(config, data_spec)
    return dataclasses.replace(family, label_smoothing=config.loss.label_smoothing)

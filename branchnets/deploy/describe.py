"""Flax modules as JSON, and back: only dataclasses that a family lists are ever made."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from branchnets.errors import DeployError
from branchnets.registry import DTYPES

#: Fields that Flax adds to every module.
_FLAX = ("parent", "name")


def describe_module(value: Any, allowed: Iterable[type]) -> Any:
    """A module, or a value inside one, as JSON.

    Dataclasses are ``{"type": name, "fields": {...}}`` with every field, so that a default that
    changes later changes nothing; tuples are lists, dtypes ``{"dtype": name}``.

    Raises:
      TypeError: something that has no such form, or a dataclass that is not in ``allowed``.
    """
    allowed = tuple(allowed)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        if type(value) not in allowed:
            raise TypeError(f"{type(value).__name__} is not among the family's modules")
        fields = {
            field.name: describe_module(getattr(value, field.name), allowed)
            for field in dataclasses.fields(value)
            if field.init and not (isinstance(value, nn.Module) and field.name in _FLAX)
        }
        return {"type": type(value).__name__, "fields": fields}
    if isinstance(value, tuple):
        return [describe_module(item, allowed) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    for name, dtype in DTYPES.items():
        if value is dtype or (isinstance(value, np.dtype) and value == jnp.dtype(dtype)):
            return {"dtype": name}
    raise TypeError(f"{value!r} cannot be written as JSON")


def build_module(description: Any, allowed: Iterable[type]) -> Any:
    """The module that :func:`describe_module` described.

    Raises:
      DeployError: a type that is not in ``allowed``, a field that it does not have, or a
        description that is none.
    """
    types = {kind.__name__: kind for kind in allowed}

    def build(value: Any) -> Any:
        if isinstance(value, list):
            return tuple(map(build, value))
        if not isinstance(value, dict):
            return value
        if set(value) == {"dtype"} and value["dtype"] in DTYPES:
            return DTYPES[value["dtype"]]
        if set(value) != {"type", "fields"} or not isinstance(value["fields"], dict):
            raise DeployError(f"the description of the network has {value!r}, which is no module")
        kind = types.get(str(value["type"]))
        if kind is None:
            raise DeployError(
                f"the network has a part {value['type']!r}; this version knows "
                f"{', '.join(sorted(types)) or 'none'}. Upgrade branchnets."
            )
        known = {field.name for field in dataclasses.fields(kind) if field.init} - set(_FLAX)
        if strange := sorted(set(value["fields"]) - known):
            raise DeployError(
                f"the network's {value['type']} has a field {strange[0]!r} that this version does "
                "not know. Upgrade branchnets."
            )
        try:
            return kind(**{name: build(item) for name, item in value["fields"].items()})
        except TypeError as error:
            raise DeployError(f"the network's {value['type']} cannot be built: {error}") from error

    return build(description)

"""Models by name: what ``create_model`` can build.

A family registers its networks here; an entry keeps the input shape that the network is usually
given, so that tools can count and time it without a data set.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import importlib
import re
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from branchnets.errors import ConfigError, nearest, unknown

# One line a family: the module that registers its networks and its Family class.
FAMILIES = {
    "plain": "branchnets.families.plain",
    "coded": "branchnets.families.coded",
    "maskconnect": "branchnets.families.maskconnect",
}

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One registered network.

    Attributes:
      build: makes the module from ``num_classes`` and overrides.
      family: the family that trains it.
      image_shape: (H, W, C) of its usual input.
      num_classes: K it is usually trained for.
    """

    build: Callable[..., nn.Module]
    family: str
    image_shape: tuple[int, int, int]
    num_classes: int


_ENTRIES: dict[str, Entry] = {}


def register(name: str, entry: Entry) -> None:
    """Adds a network; a name is given once."""
    if name in _ENTRIES:
        raise ValueError(f"model {name!r} is registered twice")
    _ENTRIES[name] = entry


def _load_families() -> None:
    for module in FAMILIES.values():
        importlib.import_module(module)


def entry(name: str) -> Entry:
    """The registry entry of a model; raises ValueError with the list of names on a wrong one."""
    _load_families()
    if name not in _ENTRIES:
        raise unknown("model", name, _ENTRIES)
    return _ENTRIES[name]


def list_models(pattern: str = "*") -> list[str]:
    """Names of the registered models that match a shell pattern, such as ``"coded*"``."""
    _load_families()
    return sorted(fnmatch.filter(_ENTRIES, pattern))


def default_image_shape(name: str) -> tuple[int, int, int]:
    """(H, W, C) of the images that a registered model is usually given."""
    return entry(name).image_shape


def create_model(name: str, *, num_classes: int | None = None, **overrides: Any) -> nn.Module:
    """Builds a registered network.

    Args:
      name: a name of :func:`list_models`.
      num_classes: K; the entry's usual number when None.
      **overrides: fields of the module, or arguments of its builder (``active=`` for coded
        networks).  ``dtype`` may be a string.

    Returns:
      A flax.linen module whose ``apply(variables, images, train=...)`` gives a dataclass with
      ``logits`` first.

    Raises:
      ValueError: an unknown name, field or dtype.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import branchnets
      >>> model = branchnets.create_model("coded_resnext_digits", num_classes=10)
      >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 16, 16, 1)))
      >>> model.apply(variables, jnp.zeros((2, 16, 16, 1))).logits.shape
      (2, 10)
    """
    found = entry(name)
    classes = found.num_classes if num_classes is None else num_classes
    if isinstance(overrides.get("dtype"), str):
        if overrides["dtype"] not in DTYPES:
            raise unknown("dtype", overrides["dtype"], DTYPES)
        overrides["dtype"] = DTYPES[overrides["dtype"]]
    try:
        return found.build(num_classes=classes, **overrides)
    except TypeError as error:
        match = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if match is None:
            raise
        module = found.build(num_classes=classes)
        fields = {field.name for field in dataclasses.fields(module)} - {"parent", "name"}
        raise ConfigError(
            f"{name} has no field {match[1]!r}. {nearest(match[1], fields)}"
        ) from error


def build_from_config(config: Any, data_spec: Any) -> Any:
    """The network of a config: ``config.model`` is a name and overrides of its fields.

    Raises:
      ValueError: an unknown model or field; a model of another family than ``config.family``.
    """
    overrides = {
        key: value
        for key, value in dict(config.model).items()
        if key != "name" and value is not None
    }
    name = config.model.name
    if entry(name).family != config.family:
        raise ConfigError(
            f"model {name!r} belongs to family {entry(name).family!r}, the config says "
            f"{config.family!r}; set config.family or choose another model"
        )
    overrides.setdefault("bn_group_size", config.bn_group_size)
    return create_model(name, num_classes=data_spec.num_classes, dtype=config.dtype, **overrides)

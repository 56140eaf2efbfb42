"""The leaves of a state by their names, which is how a checkpoint knows them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

Name = tuple[str, ...]
_SHOWN = 8  # differences that an error names


def named(tree: Any) -> dict[Name, Any]:
    """Return {path: leaf}; attributes, keys and positions along a path are all text."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        tuple(jax.tree_util.keystr((key,), simple=True) for key in path): leaf
        for path, leaf in flat
    }


def leaf_name(path: Any) -> str:
    """The name of a leaf of variables from its path: "params/stem/conv/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def differences(
    stored: Mapping[Name, Any],
    wanted: Mapping[Name, Any],
    *,
    partial: bool = False,
    holder: str = "the checkpoint",
) -> list[str]:
    """Return a line for each leaf whose presence, shape or dtype differs.

    Args:
      stored: {path: anything with shape and dtype} of a checkpoint. Leaves without elements are
        never stored.
      wanted: The same of a template.
      partial: Whether the checkpoint may have leaves that the template lacks.
      holder: What the checkpoint is called.
    """
    lines = []
    for path in sorted(stored.keys() | wanted.keys()):
        name = "/".join(path)
        if path not in wanted:
            if not partial:
                lines.append(f"{name}: only in {holder}")
            continue
        new = wanted[path]
        if path not in stored:
            if math.prod(new.shape):
                lines.append(f"{name}: not in {holder}")
            continue
        old = stored[path]
        if tuple(old.shape) != tuple(new.shape):
            lines.append(f"{name}: shape {tuple(old.shape)} in {holder}, {tuple(new.shape)} wanted")
        elif np.dtype(old.dtype) != np.dtype(new.dtype):
            lines.append(f"{name}: {old.dtype} in {holder}, {new.dtype} wanted")
    return lines


def abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    """Return shape, dtype and sharding of a leaf; without a sharding, the first device's."""
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def zeros(leaf: Any) -> jax.Array:
    """Return an array of zeros like a leaf."""
    return jax.device_put(np.zeros(leaf.shape, leaf.dtype), abstract(leaf).sharding)


def nbytes(tree: Any) -> int:
    """Return the bytes of all leaves of a tree of arrays or shapes, each counted whole."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def listed(lines: Sequence[str]) -> str:
    """Return what `differences` gave as indented lines, the first eight and how many more."""
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return "\n  ".join([*lines[:_SHOWN], *more])

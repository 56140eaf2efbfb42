"""Devices: one axis, ``"data"``, over which the batch is spread while everything else is copied."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh with the single axis ``"data"``, over all devices of all processes by default."""
    return Mesh(np.asarray(jax.devices() if devices is None else devices), ("data",))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of state and data sets: a copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def spread(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """The sharding of a batch whose example axis is ``axis``."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))


def abstract(tree: Any, mesh: Mesh) -> Any:
    """Shapes, dtypes and shardings of a tree copied to every device of a mesh."""
    sharding = replicated(mesh)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
    )

"""Host arrays on a mesh's devices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from branchnets.errors import DataError

EVERYWHERE, SPREAD = PartitionSpec(), PartitionSpec("data")


def check_batch_size(batch_size: int, mesh: Mesh | None, what: str = "batch_size") -> None:
    """Raise a ValueError unless the mesh's "data" axis divides `batch_size`."""
    if batch_size < 1:
        raise DataError(f"{what}={batch_size} must be at least 1")
    if mesh is not None and batch_size % mesh.shape["data"]:
        devices = mesh.shape["data"]
        nearest = max(devices, batch_size // devices * devices)
        raise DataError(
            f"{what}={batch_size} does not divide evenly over {devices} devices; "
            f"{nearest} or {nearest + devices} would"
        )


def put(array: np.ndarray, mesh: Mesh | None, spec: PartitionSpec) -> jax.Array:
    """Place a host array that every process holds whole."""
    if mesh is None:
        return jnp.asarray(array)
    sharding = NamedSharding(mesh, spec)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def shaped(
    shape: tuple[int, ...], dtype: DTypeLike, mesh: Mesh | None, spec: PartitionSpec
) -> jax.ShapeDtypeStruct:
    """What :func:`put` would give, of devices that need not be here."""
    sharding = None if mesh is None else NamedSharding(mesh, spec)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def put_local(array: np.ndarray, mesh: Mesh | None) -> jax.Array:
    """Place the rows of a batch that belong to this process: [B / processes, ...] -> [B, ...]."""
    if mesh is None:
        return jnp.asarray(array)
    return jax.make_array_from_process_local_data(NamedSharding(mesh, SPREAD), array)


def spread(array: jax.Array, mesh: Mesh | None) -> jax.Array:
    """Inside a traced function: the batch axis over the mesh's "data" axis."""
    if mesh is None:
        return array
    return jax.lax.with_sharding_constraint(array, NamedSharding(mesh, SPREAD))

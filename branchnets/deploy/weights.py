"""Variables as a safetensors file: one array a name, ``params/stage2/block0/reduce/kernel``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from branchnets.errors import DeployError

PyTree = Any


def to_bytes(variables: PyTree) -> bytes:
    """The contents of weights.safetensors; float32 whatever the variables are."""
    flat = flax.traverse_util.flatten_dict(_plain(variables), sep="/")
    arrays = {name: np.ascontiguousarray(x, np.float32) for name, x in flat.items()}
    return safetensors.numpy.save(arrays, {"format": "branchnets"})


def from_bytes(data: bytes, model: nn.Module, image_shape: tuple[int, int, int]) -> PyTree:
    """The variables of a module, read and checked against what the module declares.

    Args:
      data: of :func:`to_bytes`.
      model: the module that they are for.
      image_shape: (H, W, C).

    Raises:
      DeployError: damaged, or not the arrays of this module.
    """
    found = read_arrays(data)
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    try:
        shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    except Exception as error:  # whatever a module stumbles over whose fields are of other types
        raise DeployError(f"the network that classifier.json describes is none: {error}") from error
    declared = flax.traverse_util.flatten_dict(_plain(shapes), sep="/")
    if missing := sorted(set(declared) - set(found)):
        raise DeployError(f"weights.safetensors lacks {missing[0]} ({len(missing)} such arrays)")
    if extra := sorted(set(found) - set(declared)):
        raise DeployError(
            f"weights.safetensors has {extra[0]}, which the network does not ({len(extra)} such "
            "arrays)"
        )
    for name, leaf in declared.items():
        if found[name].shape != leaf.shape or found[name].dtype != leaf.dtype:
            raise DeployError(
                f"weights.safetensors: {name} is {found[name].dtype} {found[name].shape}, the "
                f"network needs {leaf.dtype} {leaf.shape}"
            )
    return flax.traverse_util.unflatten_dict(found, sep="/")


def read_arrays(data: bytes, name: str = "weights.safetensors") -> dict[str, np.ndarray]:
    """Name -> array of everything in a safetensors file, unchecked.

    Raises:
      DeployError: it is damaged, or no such file.
    """
    try:
        return safetensors.numpy.load(data)
    except safetensors.SafetensorError as error:
        raise DeployError(f"{name} cannot be read: {error}") from error


def _plain(tree: PyTree) -> Any:
    """Nested dictionaries, whatever mappings the tree is made of."""
    if isinstance(tree, Mapping):
        return {str(name): _plain(value) for name, value in tree.items()}
    return tree

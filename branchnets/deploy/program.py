"""The program that is deployed: pixels in, scores out; exported with its weights inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import export

from branchnets.data.device.augment import normalize
from branchnets.deploy.preprocess import Preprocessing
from branchnets.errors import DeployError

PyTree = Any
PLATFORMS = ("cpu", "cuda", "tpu")


def score_program(
    model: nn.Module, preprocessing: Preprocessing
) -> Callable[[PyTree, jax.Array], jax.Array]:
    """(variables, uint8 [B, H, W, C]) -> float32 logits [B, outputs]."""

    def score(variables: PyTree, images: jax.Array) -> jax.Array:
        pixels = normalize(images, preprocessing.mean, preprocessing.std)
        output: Any = model.apply(variables, pixels, train=False)
        return output.logits.astype(jnp.float32)

    return score


def export_program(model: nn.Module, variables: PyTree, preprocessing: Preprocessing) -> bytes:
    """The contents of model.jaxexport: any number of images, on CPU, CUDA and TPU."""
    score = score_program(model, preprocessing)

    def program(images: jax.Array) -> jax.Array:
        # Behind the barrier every weight is one constant that no compiler computes with: without
        # it, they are repeated in the file, and XLA folds the Gram matrices for minutes.
        weights = jax.lax.optimization_barrier(jax.tree.map(jnp.asarray, variables))
        return score(weights, images)

    (batch,) = export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, *preprocessing.image_shape), jnp.uint8)
    return bytes(export.export(jax.jit(program), platforms=PLATFORMS)(images).serialize())


def load_program(data: bytes) -> Callable[[jax.Array], jax.Array]:
    """The function in model.jaxexport, ready to be called on this machine's device.

    Raises:
      DeployError: it cannot be read by this JAX, or was not made for this platform.
    """
    try:
        exported = export.deserialize(bytearray(data))
    except Exception as error:  # whatever the readers of its two formats stumble over
        raise DeployError(
            f"model.jaxexport cannot be read by JAX {jax.__version__}: {error}. Use "
            "form='module', or a newer JAX."
        ) from error
    platform = export.default_export_platform()
    if platform not in exported.platforms:
        raise DeployError(
            f"model.jaxexport is for {', '.join(exported.platforms)}, and this machine computes "
            f"on {platform}. Use form='module'."
        )
    return jax.jit(exported.call)

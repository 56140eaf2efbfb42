"""The last part of input, on the devices: augment, normalise, mix a batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from branchnets.data.base import Dataset
from branchnets.data.device.augment import Augment, augment, crop_flip, normalize
from branchnets.data.device.mix import mix
from branchnets.data.device.placement import SPREAD, spread


class Finish:
    """Makes of pixels what a network is trained on; pure, to be traced.

    Args:
      dataset: gives mean, std and the size of crops.
      augment_config: an Augment, or a config's `augment` section.
      mesh: over whose "data" axis the batch lies; None = the default device.
    """

    def __init__(self, dataset: Dataset, augment_config: Any, mesh: Mesh | None = None) -> None:
        self._augment = (
            augment_config
            if isinstance(augment_config, Augment)
            else Augment.from_config(augment_config)
        )
        self._size = dataset.image_shape[:2]
        self._mean, self._std = np.asarray(dataset.mean), dataset.std
        # What a warp of RandAugment uncovers is filled with the mean colour.
        self._colour = tuple(self._mean.reshape(-1, self._mean.shape[-1]).mean(axis=0).tolist())
        self._mesh = mesh

    def __call__(
        self, key: jax.Array, images: jax.Array, labels: jax.Array
    ) -> dict[str, jax.Array]:
        """The batch of a step.

        Args:
          key: random key of this step's augmentation.
          images: uint8 [B, H, W, C], spread over the mesh.
          labels: int32 [B], likewise.

        Returns:
          "image" float32 [B, H, W, C] normalised, of the dataset's `image_shape`, "label" int32
          [B], and with mixup or cutmix "other_label" int32 [B] and "share" float32 [B] (see
          :func:`branchnets.data.device.mix.mix`); the batch axis lies over the mesh's "data" axis.

        Raises:
          DataError: B is odd, and examples are to be mixed.
        """
        mean = jnp.asarray(self._mean, jnp.float32)
        if mean.ndim > 1:
            mean = spread(jnp.broadcast_to(mean, images.shape), self._mesh)
            mean = crop_flip(key, mean, self._augment, self._size)
        images = augment(key, images, self._augment, self._colour, self._size)
        batch = {"image": normalize(images, mean, self._std), "label": labels}
        mixup, cutmix = self._augment.mixup, self._augment.cutmix
        if mixup or cutmix:
            batch = mix(jax.random.fold_in(key, 3), batch["image"], labels, mixup, cutmix)
        return {name: spread(array, self._mesh) for name, array in batch.items()}


def central_normalizer(
    dataset: Dataset, mesh: Mesh | None = None
) -> Callable[[jax.Array], jax.Array]:
    """What evaluation makes of pixels: uint8 [B, H, W, C] -> float32, normalised, jitted.

    Args:
      dataset: gives mean (of the middle) and std.
      mesh: over whose "data" axis the batch lies; None = the default device.
    """
    sharding = None if mesh is None else NamedSharding(mesh, SPREAD)
    mean = np.asarray(dataset.central_mean, np.float32)
    return jax.jit(partial(normalize, mean=mean, std=dataset.std), out_shardings=sharding)

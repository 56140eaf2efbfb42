"""Datasets that live on the device: no input pipeline, hence no input bottleneck.

`ResidentInput` feeds training (shuffled and augmented inside the jitted step), `EvalInput`
evaluation (every example exactly once, the last batch padded and masked).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from branchnets.data.base import Dataset, Split, centre
from branchnets.data.device.finish import Finish, central_normalizer
from branchnets.data.device.placement import (
    EVERYWHERE,
    SPREAD,
    check_batch_size,
    put,
    shaped,
    spread,
)
from branchnets.errors import DataError

_ORDER_PURPOSE = 0x6F7264  # sets these keys apart from other uses of the seed


class ResidentBatches:
    """What a step makes of a training split that lies on the devices; it may lie nowhere yet.

    Args, attributes and errors: those of :class:`ResidentInput`.
    """

    def __init__(
        self,
        split: Split,
        dataset: Dataset,
        augment_config: Any,
        batch_size: int,
        mesh: Mesh | None = None,
    ) -> None:
        check_batch_size(batch_size, mesh)
        if len(split) < batch_size:
            raise DataError(
                f"the training split of {dataset.name!r} has {len(split)} examples, fewer than "
                f"one batch of {batch_size}; lower batch_size or raise data.train_size"
            )
        mean_shape = np.shape(dataset.mean)
        if len(mean_shape) > 1 and mean_shape != split.images.shape[1:]:
            raise DataError(
                f"the mean image of {dataset.name!r} has shape {mean_shape}, its training "
                f"images {split.images.shape[1:]}"
            )
        self.batch_size = batch_size
        self.steps_per_epoch = len(split) // batch_size
        self._finish = Finish(dataset, augment_config, mesh)
        self._split, self._mesh = split, mesh

    def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes, dtypes and shardings of :meth:`ResidentInput.arrays`."""
        count = len(self._split)
        made = {
            "images": (self._split.images.shape, np.uint8),
            "labels": ((count,), np.int32),
            "order": ((count,), np.int32),
            "key": ((2,), np.uint32),
        }
        return {name: shaped(*what, self._mesh, EVERYWHERE) for name, what in made.items()}

    def batch(
        self, arrays: dict[str, jax.Array], step: jax.Array, key: jax.Array
    ) -> dict[str, jax.Array]:
        """Gather and finish the batch of `step`; pure, to be traced.

        Args:
          arrays: from `arrays(step)`.
          step: int32 scalar, may be traced.
          key: random key of this step's augmentation.

        Returns:
          What :class:`branchnets.data.device.finish.Finish` makes of them.
        """
        start = (step % self.steps_per_epoch) * self.batch_size
        indices = jax.lax.dynamic_slice(arrays["order"], (start,), (self.batch_size,))
        indices = spread(indices, self._mesh)
        images = spread(arrays["images"][indices], self._mesh)
        return self._finish(key, images, arrays["labels"][indices])


class ResidentInput(ResidentBatches):
    """A training split on the device, in a fresh order every epoch.

    An epoch visits `steps_per_epoch * batch_size` distinct examples; the remainder of its
    permutation is dropped. The order is a function of (seed, epoch) alone, so neither a restart
    nor the number of devices changes it.

    Use: `arrays(step)` on the host, passed as an argument into the jitted step, which calls
    `batch(arrays, step, key)`.

    Args:
      split: the training split.
      dataset: gives mean, std and the size of crops.
      augment_config: an Augment, or a config's `augment` section.
      batch_size: B, of the whole mesh.
      seed: of the order.
      mesh: a mesh with an axis "data", over which the batch is spread while the data is
        replicated; None = the default device.

    Raises:
      ValueError: the mesh does not divide B, the split is smaller than B, or the mean image has
        another shape than the stored images.
    """

    def __init__(
        self,
        split: Split,
        dataset: Dataset,
        augment_config: Any,
        batch_size: int,
        seed: int,
        mesh: Mesh | None = None,
    ) -> None:
        super().__init__(split, dataset, augment_config, batch_size, mesh)
        self.decoder: str | None = None
        self.unreadable = 0
        self.failure: Exception | None = None  # nothing is read later
        self._images = put(split.images, mesh, EVERYWHERE)
        self._labels = put(split.labels, mesh, EVERYWHERE)
        # A key is stored as its data, as everywhere; an argument of the step, not a constant in it.
        key = np.asarray(jax.random.key_data(jax.random.key(seed)))
        self._key = put(key, mesh, EVERYWHERE)
        self._epoch = -1
        self._order: jax.Array | None = None
        replicated = None if mesh is None else NamedSharding(mesh, EVERYWHERE)
        self._make_order = jax.jit(
            partial(_epoch_order, seed=seed, size=len(split)), out_shardings=replicated
        )

    def arrays(self, step: int) -> dict[str, jax.Array]:
        """The device arrays that `step` needs; new ones are computed only when its epoch is new.

        Args:
          step: global training step from 0, a Python integer.

        Returns:
          "images" uint8 [n, H, W, C], "labels" int32 [n], "order" int32 [n], "key" uint32 [2]
          (the seed's).
        """
        epoch = int(step) // self.steps_per_epoch
        if epoch != self._epoch or self._order is None:
            self._epoch, self._order = epoch, self._make_order(np.int32(epoch))
        return {
            "images": self._images,
            "labels": self._labels,
            "order": self._order,
            "key": self._key,
        }

    def close(self) -> None:
        """Nothing to release."""


def _epoch_order(epoch: jax.Array, *, seed: int, size: int) -> jax.Array:
    key = jax.random.fold_in(jax.random.key(seed), _ORDER_PURPOSE)
    return jax.random.permutation(jax.random.fold_in(key, epoch), size).astype(jnp.int32)


def eval_shapes(
    image_shape: tuple[int, int, int], batch_size: int, mesh: Mesh | None = None
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes, dtypes and shardings of a batch to be evaluated, as :class:`EvalInput` gives it.

    Args:
      image_shape: (H, W, C).
      batch_size: B, of the whole mesh.
      mesh: as for EvalInput.
    """
    made = {
        "image": ((batch_size, *image_shape), np.float32),
        "label": ((batch_size,), np.int32),
        "mask": ((batch_size,), np.float32),
    }
    return {name: shaped(*what, mesh, SPREAD) for name, what in made.items()}


class EvalInput:
    """A split in fixed-size batches, in order, each example exactly once.

    Iterating yields "image" float32 [B, H, W, C] normalised, "label" int32 [B] and "mask"
    float32 [B]: 1 for an example, 0 for the padding (zero images, label 0) that fills the last
    batch. It can be iterated again and again.

    Args:
      split: what to evaluate, at least one example; images larger than the dataset's
        `image_shape` are cut to their middle.
      dataset: gives mean, std and the size of crops.
      batch_size: B, of the whole mesh.
      mesh: as for ResidentInput.

    Raises:
      ValueError: the mesh does not divide B, or the split is empty.
    """

    def __init__(
        self, split: Split, dataset: Dataset, batch_size: int, mesh: Mesh | None = None
    ) -> None:
        check_batch_size(batch_size, mesh, "eval.batch_size")
        if not len(split):
            raise DataError(f"a split of {dataset.name!r} to be evaluated is empty")
        self.batch_size = batch_size
        self.num_examples, self.unreadable = len(split), 0
        self._split, self._mesh = split, mesh
        self._size = dataset.image_shape[:2]
        self._normalize = central_normalizer(dataset, mesh)

    @property
    def labels(self) -> np.ndarray:
        """int32 [n], in order, on the host."""
        return self._split.labels

    def __len__(self) -> int:
        return -(-self.num_examples // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, jax.Array]]:
        for start in range(0, self.num_examples, self.batch_size):
            images = centre(self._split.images[start : start + self.batch_size], *self._size)
            labels = self._split.labels[start : start + self.batch_size]
            missing = self.batch_size - len(images)
            mask = np.ones(len(images), np.float32)
            if missing:
                images = np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))
                labels, mask = np.pad(labels, (0, missing)), np.pad(mask, (0, missing))
            yield {
                "image": self._normalize(put(images, self._mesh, SPREAD)),
                "label": put(labels, self._mesh, SPREAD),
                "mask": put(mask, self._mesh, SPREAD),
            }

"""Which input a split gets: resident on the device, or streamed from the host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from branchnets.data.base import Dataset, Split
from branchnets.data.records import StreamedSplit
from branchnets.data.resident import EvalInput, ResidentInput
from branchnets.errors import DataError


class TrainInput(Protocol):
    """Gives the batch of any step, as a function of (seed, step) alone.

    Use: `arrays(step)` on the host, passed as an argument into the jitted step, which calls
    `batch(arrays, step, key)`.
    """

    batch_size: int
    steps_per_epoch: int

    def arrays(self, step: int) -> dict[str, jax.Array]:
        """The device arrays that `step` needs; "key" uint32 [2] (the seed's) is among them."""
        ...

    def batch(
        self, arrays: dict[str, jax.Array], step: jax.Array, key: jax.Array
    ) -> dict[str, jax.Array]:
        """The batch of `step`, to be traced; see :class:`branchnets.data.finish.Finish`."""
        ...

    def close(self) -> None:
        """Ends what was started for it, such as worker processes."""
        ...


class EvalBatches(Protocol):
    """A split in fixed-size batches, in order, each example exactly once; see `EvalInput`."""

    batch_size: int
    num_examples: int

    @property
    def labels(self) -> np.ndarray:
        """int32 [n], in order, on the host."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[dict[str, jax.Array]]: ...


def train_input(dataset: Dataset, config: Any, mesh: Mesh | None = None) -> TrainInput:
    """The training input of a config.

    Args:
      dataset: with a split "train".
      config: the whole config: `data`, `augment`, `batch_size`, `seed`.
      mesh: the devices; None is the default one.

    Raises:
      DataError: a batch size that does not fit, or an augmentation that this input cannot do.
    """
    split = dataset.split("train")
    if isinstance(split, StreamedSplit):
        raise NotImplementedError
    if config.augment.crop_area is not None:
        raise DataError(
            f"augment.crop_area crops streamed images, and {dataset.name!r} is held in memory; "
            "set data.stream=True, or leave augment.crop_area empty"
        )
    return ResidentInput(split, dataset, config.augment, config.batch_size, config.seed, mesh)


def eval_input(
    split: Split | StreamedSplit,
    dataset: Dataset,
    config: Any,
    batch_size: int,
    mesh: Mesh | None = None,
) -> EvalBatches:
    """The batches of a split to be evaluated.

    Args:
      split: of the dataset, or other images of its shape.
      dataset: gives mean, std and sizes.
      config: the whole config: `data`, `eval`.
      batch_size: B, of the whole mesh.
      mesh: the devices; None is the default one.
    """
    if isinstance(split, StreamedSplit):
        raise NotImplementedError
    return EvalInput(split, dataset, batch_size, mesh)

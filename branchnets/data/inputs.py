"""Which input a split gets: resident on the device, or streamed from the host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from branchnets.data.base import Dataset, Split, field
from branchnets.data.device.augment import Augment
from branchnets.data.device.finish import Finish
from branchnets.data.device.resident import EvalInput, ResidentBatches, ResidentInput
from branchnets.data.stored.records import StreamedSplit
from branchnets.data.streamed.decode import decoder_name
from branchnets.data.streamed.rows import EvalRows, Part, Reading, TrainRows
from branchnets.data.streamed.stream import StreamedBatches, StreamedEval, StreamedInput
from branchnets.data.streamed.workers import num_workers
from branchnets.errors import DataError


class TrainBatches(Protocol):
    """What a step makes of its input; the input itself need not be here."""

    batch_size: int
    steps_per_epoch: int

    def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes, dtypes and shardings of what `arrays` of :class:`TrainInput` gives."""
        ...

    def batch(
        self, arrays: dict[str, jax.Array], step: jax.Array, key: jax.Array
    ) -> dict[str, jax.Array]:
        """The batch of `step`, to be traced; see :class:`branchnets.data.device.finish.Finish`."""
        ...


class TrainInput(TrainBatches, Protocol):
    """Gives the batch of any step, as a function of (seed, step) alone.

    Use: `arrays(step)` on the host, passed as an argument into the jitted step, which calls
    `batch(arrays, step, key)`.
    """

    #: What decodes images as they are needed; None: nothing does.
    decoder: str | None
    #: Examples of this process that could not be used, up to the last step given out; others stood
    #: for them.
    unreadable: int

    @property
    def failure(self) -> Exception | None:
        """What `arrays` of a step to come will raise, where it is known before."""
        ...

    def arrays(self, step: int) -> dict[str, jax.Array]:
        """The device arrays that `step` needs; "key" uint32 [2] (the seed's) is among them."""
        ...

    def close(self) -> None:
        """Ends what was started for it, such as worker processes."""
        ...


class EvalBatches(Protocol):
    """A split in fixed-size batches, in order, each example exactly once; see `EvalInput`."""

    batch_size: int
    num_examples: int
    #: Examples of this process that could not be used and were left out the last time.
    unreadable: int

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
        rows = train_rows(split, dataset, config, jax.process_index(), jax.process_count())
        finish = Finish(dataset, config.augment, mesh)
        return StreamedInput(rows, finish, num_workers(config.data), mesh)
    _refuse_crop_area(dataset, config)
    return ResidentInput(split, dataset, config.augment, config.batch_size, config.seed, mesh)


def train_batches(dataset: Dataset, config: Any, mesh: Mesh | None = None) -> TrainBatches:
    """What :func:`train_input` has of its step, without an array, a file or a device.

    Args and errors: as there.
    """
    split = dataset.split("train")
    if isinstance(split, StreamedSplit):
        finish = Finish(dataset, config.augment, mesh)
        return StreamedBatches(len(split), split.image_shape, config.batch_size, finish, mesh)
    _refuse_crop_area(dataset, config)
    return ResidentBatches(split, dataset, config.augment, config.batch_size, mesh)


def _refuse_crop_area(dataset: Dataset, config: Any) -> None:
    if config.augment.crop_area is not None:
        raise DataError(
            f"augment.crop_area crops streamed images, and {dataset.name!r} is held in memory; "
            "set data.stream=True, or leave augment.crop_area empty"
        )


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
        part = Part(batch_size, jax.process_index(), jax.process_count())
        size = field(config.eval, "image_size")
        shape = split.image_shape if size is None else (size, size, split.image_shape[2])
        reading = _reading(split, dataset, config.data, shape)
        rows = EvalRows(reading, part, config.eval.crop_fraction)
        return StreamedEval(rows, dataset, num_workers(config.data), mesh)
    return EvalInput(split, dataset, batch_size, mesh)


def train_rows(
    split: StreamedSplit, dataset: Dataset, config: Any, process: int = 0, processes: int = 1
) -> TrainRows:
    """What one of several processes decodes of a streamed training split.

    Args:
      split: the training split.
      dataset: gives the classes.
      config: the whole config: `data`, `augment`, `batch_size`, `seed`.
      process: which of `processes`.
      processes: how many share the batch.

    Raises:
      DataError: ranges of a crop that mean nothing.
    """
    augment = Augment.from_config(config.augment)
    crop = None
    if augment.crop_area is not None:
        crop = (
            _range("augment.crop_area", augment.crop_area, most=1.0),
            _range("augment.crop_ratio", augment.crop_ratio),
        )
    reading = _reading(split, dataset, config.data, split.image_shape)
    return TrainRows(reading, Part(config.batch_size, process, processes), config.seed, crop)


def _reading(
    split: StreamedSplit, dataset: Dataset, cfg: Any, image_shape: tuple[int, int, int]
) -> Reading:
    decoder = decoder_name(field(cfg, "decoder", "auto"))
    skip = field(cfg, "on_error", "stop") == "skip"
    return Reading(split, image_shape, dataset.num_classes, decoder, skip)


def _range(name: str, values: Any, most: float = float("inf")) -> tuple[float, float]:
    low, high = (*map(float, values), 0.0, 0.0)[:2]
    if len(values) != 2 or not 0 < low <= high <= most:
        limit = f" and at most {most:g}" if most < float("inf") else ""
        raise DataError(
            f"{name}={tuple(values)} must be a smallest and a largest number above 0{limit}"
        )
    return low, high

"""Datasets: splits on the host, batches on the device. Knows no model family."""

from branchnets.data.base import (
    AnySplit,
    Dataset,
    DataSpec,
    Mean,
    Split,
    as_mean,
    identity,
    pixels,
)
from branchnets.data.device.augment import Augment
from branchnets.data.device.resident import EvalInput, ResidentInput, eval_shapes
from branchnets.data.inputs import (
    EvalBatches,
    TrainBatches,
    TrainInput,
    eval_input,
    train_batches,
    train_input,
)
from branchnets.data.outline import outline
from branchnets.data.registry import DATASETS, content_shape, load, spec, streams
from branchnets.data.sizes import at_size, resized_mean
from branchnets.data.stored.records import StreamedSplit

__all__ = [
    "DATASETS",
    "AnySplit",
    "Augment",
    "DataSpec",
    "Dataset",
    "EvalBatches",
    "EvalInput",
    "Mean",
    "ResidentInput",
    "Split",
    "StreamedSplit",
    "TrainBatches",
    "TrainInput",
    "as_mean",
    "at_size",
    "content_shape",
    "eval_input",
    "eval_shapes",
    "identity",
    "load",
    "outline",
    "pixels",
    "resized_mean",
    "spec",
    "streams",
    "train_batches",
    "train_input",
]

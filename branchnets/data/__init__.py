"""Datasets: splits on the host, batches on the device. Knows no model family."""

from branchnets.data.augment import Augment
from branchnets.data.base import Dataset, DataSpec, Mean, Split, as_mean
from branchnets.data.registry import DATASETS, content_shape, load, spec
from branchnets.data.resident import EvalInput, ResidentInput

__all__ = [
    "DATASETS",
    "Augment",
    "DataSpec",
    "Dataset",
    "EvalInput",
    "Mean",
    "ResidentInput",
    "Split",
    "as_mean",
    "content_shape",
    "load",
    "spec",
]

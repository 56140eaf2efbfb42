"""How the masks changed in training, from the lines that training wrote."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

#: Names of the metrics, before the module's.
ENTROPY, CHURN = "mask_entropy/", "mask_churn/"


@dataclasses.dataclass(frozen=True)
class Series:
    """A metric of every module over training.

    Attributes:
      epochs: [n], increasing; each value is a mean over the steps since the one before.
      steps: [n], steps done then.
      values: module name -> [n]; nan where the line had none.
    """

    epochs: np.ndarray
    steps: np.ndarray
    values: Mapping[str, np.ndarray]


def series(
    history: Sequence[Mapping[str, Any]], modules: Sequence[str], metric: str
) -> Series | None:
    """A metric from the training lines; None where no line has it.

    Args:
      history: lines with "step", "split", "epoch" and metrics, oldest first.
      modules: names, in order; those without the metric are left out.
      metric: :data:`ENTROPY` or :data:`CHURN`.
    """
    known = [name for name in modules if any(f"{metric}{name}" in line for line in history)]
    rows = [
        line
        for line in history
        if line["split"] == "train" and any(f"{metric}{name}" in line for name in known)
    ]
    if not rows:
        return None
    return merged(
        Series(
            np.array([_number(row.get("epoch", row["step"])) for row in rows]),
            np.array([row["step"] for row in rows]),
            {n: np.array([_number(row.get(f"{metric}{n}")) for row in rows]) for n in known},
        )
    )


def merged(found: Series) -> Series:
    """Joins a line of few steps, as one before a checkpoint can be, to the one before it.

    Few are less than half of the median; alone they would show noise.  Means are weighted by steps.
    """
    length = np.diff(found.steps, prepend=0)
    begins = length >= np.median(length) / 2
    begins[0] = True
    group = np.cumsum(begins) - 1
    ends = np.append(np.flatnonzero(begins)[1:] - 1, len(length) - 1)
    weight = np.maximum(length, 1)

    def mean(values: np.ndarray) -> np.ndarray:
        seen = np.where(np.isnan(values), 0, weight)
        total = np.bincount(group, seen * np.nan_to_num(values))
        count = np.bincount(group, seen)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    return Series(
        found.epochs[ends], found.steps[ends], {n: mean(v) for n, v in found.values.items()}
    )


def curve(history: Sequence[Mapping[str, Any]], split: str, metric: str) -> np.ndarray:
    """(epoch, value) of a metric on a split, [n, 2]."""
    rows = [line for line in history if line["split"] == split and metric in line]
    pairs = [(_number(row.get("epoch", row["step"])), _number(row[metric])) for row in rows]
    return np.array(pairs).reshape(-1, 2)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


@dataclasses.dataclass(frozen=True)
class Stretch:
    """A phase on the axis of epochs: from ``start`` to ``end``; ``mode`` as in the family."""

    mode: str
    start: float
    end: float


def stretches(plan: Sequence[tuple[str, float]]) -> tuple[Stretch, ...]:
    """The phases of a plan of (mode, epochs), one after another."""
    ends = np.cumsum([length for _, length in plan]).tolist()
    starts = [0.0, *ends[:-1]]
    return tuple(Stretch(m, s, e) for (m, _), s, e in zip(plan, starts, ends, strict=True))


def learning(found: Series, end: float) -> Series:
    """The part of a series in which masks are learned: up to and with the epoch ``end``."""
    kept = found.epochs <= end + 1e-6
    return Series(
        found.epochs[kept], found.steps[kept], {n: v[kept] for n, v in found.values.items()}
    )


def turnover(churn: Series) -> dict[str, float]:
    """Module name -> how often one of its top-K connections was replaced, on average.

    The sum over steps of the share that was new; a line stands for the steps since the one before.
    """
    length = np.diff(churn.steps, prepend=0)
    return {name: float(np.nansum(values * length)) for name, values in churn.values.items()}


def equal_entropy(fan_in: int, inputs: int) -> float:
    """Entropy of a mask with K equal entries and no others, over that of C: log K / log C."""
    return math.log(fan_in) / math.log(max(inputs, 2))

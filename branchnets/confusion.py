"""Which classes a network takes for which: the counts of an evaluation, in tables and in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from branchnets.report.content import Table
from branchnets.report.stats import proportion_interval

#: The metric's name in every mode of evaluation: "confusion", "sampled/confusion".
NAME = "confusion"


@dataclasses.dataclass(frozen=True)
class Pair:
    """A class whose examples are taken for another.

    Attributes:
      label, answer: the two classes.
      count: examples.
      share: of the examples of `label`.
    """

    label: int
    answer: int
    count: int
    share: float


def matrices(metrics: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Mode -> examples by class and answer, int64 [K, K]; the main mode is ``""``."""
    return {
        name.removesuffix(NAME).removesuffix("/"): np.rint(value).astype(np.int64)
        for name, value in metrics.items()
        if _is_confusion(name)
    }


def without(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The other metrics: K x K numbers have a file of their own."""
    return {name: value for name, value in metrics.items() if not _is_confusion(name)}


def _is_confusion(name: str) -> bool:
    return name.rpartition("/")[2] == NAME


def per_class(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(examples int64 [K], accuracy float64 [K]; nan for a class without examples)."""
    count = matrix.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return count, np.diagonal(matrix) / count


def pairs(matrix: np.ndarray) -> list[Pair]:
    """All confusions that occur, the most frequent first, equal ones in label order."""
    count = matrix.sum(axis=1)
    wrong = matrix - np.diag(np.diagonal(matrix))
    found = [
        Pair(int(a), int(b), int(wrong[a, b]), float(wrong[a, b] / count[a]))
        for a, b in np.argwhere(wrong > 0)
    ]
    return sorted(found, key=lambda pair: (-pair.count, pair.label, pair.answer))


def class_table(
    found: Mapping[str, np.ndarray], class_names: Sequence[str], name: str, split: str
) -> Table:
    """Examples and accuracy of each class.

    Args:
      found: of :func:`matrices`; modes other than the main one are columns of their own.
      class_names: K names.
      name: of the table.
      split: what was evaluated.
    """
    count, accuracy = per_class(found[""])
    others = {mode: per_class(matrix)[1] for mode, matrix in found.items() if mode}
    rows = []
    for label, n in enumerate(count.tolist()):
        right = int(found[""][label, label])
        numbers = (accuracy[label], *proportion_interval(right, n)) if n else (None, None, None)
        more = (value[label] if n else None for value in others.values())
        rows.append((class_names[label], n, *numbers, *more))
    return Table(
        name,
        f"Accuracy on the images of each class of split {split!r}, with Wilson's 95 % interval.",
        ("class", "images", "accuracy", "from", "to", *(f"accuracy, {mode}" for mode in others)),
        tuple(rows),
    )


def count_table(matrix: np.ndarray, class_names: Sequence[str], name: str) -> Table:
    """The counts themselves, a row a class and a column an answer."""
    rows = ((class_names[a], *row) for a, row in enumerate(matrix.tolist()))
    caption = "Images by class (rows) and by the network's answer (columns)."
    return Table(name, caption, ("class", *class_names), tuple(rows))


def words(matrix: np.ndarray, class_names: Sequence[str], most: int = 5) -> str:
    """The classes with the lowest accuracy and the most frequent confusions, as text.

    Args:
      matrix: int [K, K].
      class_names: K names.
      most: lines of each at most.
    """
    mistakes = pairs(matrix)
    if not mistakes:
        return "Every image is given its class."
    count, accuracy = per_class(matrix)
    order = [k for k in np.argsort(accuracy, kind="stable") if accuracy[k] < 1]  # nan is last
    width = max(len(class_names[k]) for k in order[:most])
    lines = ["Classes with the lowest accuracy:"]
    lines += [
        f"  {class_names[k]:<{width}}  {accuracy[k]:7.2%} of {count[k]:,} images"
        for k in order[:most]
    ]
    lines += ["Most frequent confusions:"]
    lines += [
        f"  {class_names[p.label]} taken for {class_names[p.answer]}: {p.count:,} of "
        f"{count[p.label]:,} images"
        for p in mistakes[:most]
    ]
    return "\n".join(lines)

"""Which training images are the negatives of a binary classifier, for reports and for slimming.

Both choose thresholds (Coded ResNeXt, 4.3), and must choose the same ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from branchnets.errors import ConfigError
from branchnets.families.study import Option

#: Negatives for each positive of CIFAR-10 by itself; the paper draws as many on other data.
RATIO = 9
#: With more classes than this, training negatives are drawn.
MANY_CLASSES = 20

OPTION = Option(
    "negatives",
    None,
    "training negatives for each positive that the threshold of a binary classifier is chosen "
    f"with: all, or a number; by default all up to {MANY_CLASSES} classes, else {RATIO}",
    check=lambda asked: _check(asked),
)


def per_positive(asked: Any, num_classes: int) -> int | None:
    """How many training negatives to draw for each positive; None is all of them.

    Args:
      asked: value of :data:`OPTION`; from K - 1 on, which classes of equal size have in all,
        nothing is drawn.
      num_classes: K.

    Raises:
      ConfigError: neither "all" nor a whole number from 1.

    >>> per_positive(None, 10), per_positive(None, 100), per_positive("5", 10)
    (None, 9, 5)
    """
    if asked is None:
        asked = "all" if num_classes <= MANY_CLASSES else RATIO
    if asked == "all":
        return None
    if not str(asked).isdecimal() or int(asked) < 1:
        raise ConfigError(f"negatives is all or a whole number from 1, not {asked!r}")
    return int(asked) if int(asked) < num_classes - 1 else None


def _check(asked: Any) -> None:
    per_positive(asked, MANY_CLASSES)  # for any number of classes the same values are refused


def choose_pairs(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Pairs such that every class has ``count`` random negatives for each positive.

    Every image comes once with its own class and ``count`` times with others: each column is the
    labels in another order, mended until no image meets a class twice.

    Args:
      labels: [n], of K classes.
      count: at most K - 1.
      seed: of the draw, which depends on nothing else.

    Returns:
      int32 [n, 1 + count], first the label; -1 where a class with more images than all others
      leaves no partner.
    """
    random = np.random.default_rng(seed)
    columns = [labels.astype(np.int32)]
    for _ in range(count):
        column = labels[random.permutation(len(labels))].astype(np.int32)
        _mend(column, np.stack(columns, axis=1), random)
        columns.append(column)
    return np.stack(columns, axis=1)


def _mend(column: np.ndarray, taken: np.ndarray, random: np.random.Generator) -> None:
    """Swaps entries of a column until none is in its row of ``taken``; -1 where that fails."""
    bad = np.flatnonzero((taken == column[:, None]).any(axis=1))
    for i in bad:
        if column[i] not in taken[i]:  # a swap has mended it already
            continue
        for j in random.integers(0, len(column), 200):
            if column[j] not in taken[i] and column[i] not in taken[j]:
                column[i], column[j] = column[j], column[i]
                break
        else:
            column[i] = -1


def draw(
    labels: np.ndarray, classes: tuple[int, ...], count: int | None, seed: int
) -> list[np.ndarray]:
    """The negatives of some classes: those of :func:`choose_pairs`, or all.

    Args:
      labels: [n].
      classes: whose negatives are wanted.
      count: for each positive; None is all.
      seed: of the draw.

    Returns:
      For every class in turn, increasing indices of images of other classes.
    """
    if count is None:
        return [np.flatnonzero(labels != k) for k in classes]
    others = choose_pairs(labels, count, seed)[:, 1:]
    return [np.flatnonzero((others == k).any(axis=1)) for k in classes]


def weight_for(ratio: float, positives: np.ndarray, negatives: np.ndarray) -> float:
    """What one negative must count for ``ratio`` negatives a positive."""
    return ratio * len(positives) / len(negatives) if len(negatives) else 1.0

"""Thresholds and scores of binary classifiers, as pure functions of their outputs.

The binary classifier of class a keeps the branches that the code assigns to a, and its score is
logit a (Coded ResNeXt, 4.3).  It says yes where the score is at least a threshold, "the value that
maximizes the F1-score ... when fed with samples from the training dataset".
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from branchnets.errors import DataError


class Curve(NamedTuple):
    """What saying yes from each distinct score upwards gives, highest score first.

    Attributes:
      scores: the distinct scores, [m] float64, decreasing.
      true: positives with at least that score, TP, [m].
      false: negatives with at least that score times their weight, FP, [m].
      positives: how many there are in all.
    """

    scores: np.ndarray
    true: np.ndarray
    false: np.ndarray
    positives: int

    @property
    def precision(self) -> np.ndarray:
        """TP / (TP + FP), [m]; 0 where nothing with weight is accepted."""
        accepted = self.true + self.false
        return np.divide(self.true, accepted, out=np.zeros(len(accepted)), where=accepted > 0)

    @property
    def recall(self) -> np.ndarray:
        """TP / (TP + FN), [m]."""
        return self.true / self.positives

    @property
    def f1(self) -> np.ndarray:
        """2 TP / (2 TP + FP + FN), [m]."""
        return 2 * self.true / (self.true + self.false + self.positives)


def curve(positives: np.ndarray, negatives: np.ndarray, weight: float = 1.0) -> Curve:
    """Counts at every distinct score.

    Args:
      positives: scores of the class, [P].
      negatives: scores of everything else, [M].
      weight: what one negative counts.

    Raises:
      DataError: no positives, a score that is not a number, or a weight that is no weight.
    """
    positives = _checked(positives, "positives")
    negatives = _checked(negatives, "negatives")
    if not len(positives):
        raise DataError(
            "a binary classifier cannot be scored without positives: the split has no example "
            "of its class"
        )
    if not weight >= 0 or not np.isfinite(weight):
        raise DataError(f"the weight of a negative must be a number of at least 0, not {weight}")
    scores = np.concatenate([positives, negatives])
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    is_positive = order < len(positives)
    # Equal scores are accepted or refused together: the counts after the last of them.
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    true = np.cumsum(is_positive)[last]
    return Curve(scores[last], true, weight * (last + 1 - true), len(positives))


def best_threshold(positives: np.ndarray, negatives: np.ndarray, weight: float = 1.0) -> float:
    """The threshold of best F1; ``score >= threshold`` means yes.

    It lies midway between two neighbouring scores; of equally good ones it is the highest.

    Args:
      positives: training scores of the class, [P].
      negatives: training scores of the other classes, [M].
      weight: what one negative counts, so that the ratio of negatives to positives can be that of
        another split.

    Raises:
      DataError: see :func:`curve`.

    Example:
      >>> best_threshold(np.array([2.0, 3.0]), np.array([0.0, 1.0]))
      1.5
    """
    found = curve(positives, negatives, weight)
    best = int(np.argmax(found.f1))
    score = found.scores[best]
    if best + 1 == len(found.scores):
        return float(score)
    below = found.scores[best + 1]
    middle = below + (score - below) / 2
    # Neighbouring float32 scores have no float32 between them.
    return float(middle if below < np.float32(middle) <= score else score)


def scores_at(
    threshold: float, positives: np.ndarray, negatives: np.ndarray, weight: float = 1.0
) -> dict[str, float]:
    """Quality of a binary classifier on scores it has not chosen its threshold from.

    Precision = TP / (TP + FP), recall = TP / (TP + FN) (appendix C), F1 their harmonic mean;
    precision is 0 where nothing is accepted.  Average precision does not depend on the threshold:
    sum over decreasing distinct scores of precision times the gain in recall.

    Args:
      threshold: ``score >= threshold`` means yes.
      positives: scores of the class, [P].
      negatives: scores of everything else, [M].
      weight: what one negative counts.

    Returns:
      "precision", "recall", "f1", "average_precision".

    Raises:
      DataError: see :func:`curve`.
    """
    found = curve(positives, negatives, weight)
    accepted = int(np.sum(found.scores >= threshold))  # decreasing: the first so many
    at = accepted - 1
    gains = np.diff(found.recall, prepend=0.0)
    return {
        "precision": float(found.precision[at]) if accepted else 0.0,
        "recall": float(found.recall[at]) if accepted else 0.0,
        "f1": float(found.f1[at]) if accepted else 0.0,
        "average_precision": float(np.sum(gains * found.precision)),
    }


def _checked(scores: np.ndarray, what: str) -> np.ndarray:
    scores = np.asarray(scores, np.float64).reshape(-1)
    if np.isnan(scores).any():
        raise DataError(f"scores of {what} that are not numbers: the network's output is broken")
    return scores

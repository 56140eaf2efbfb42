"""How good the binary classifiers of a coded network are (4.3; Figs. 2b, 2c, 3, 7, 8)."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from branchnets.families.coded import binary
from branchnets.families.coded.analysis import scores
from branchnets.families.coded.analysis.parts import WithArrays
from branchnets.families.coded.analysis.scores import Scores
from branchnets.families.coded.negatives import (
    OPTION,
    RATIO,
    choose_pairs,
    per_positive,
    weight_for,
)
from branchnets.families.study import Examples, Subject

if TYPE_CHECKING:
    from branchnets.families.coded.family import CodedFamily

METRICS = ("precision", "recall", "f1", "average_precision")
#: Draws of 9 test negatives a positive (Figs. 2c and 8).
REPEATS = 20
#: With more than this, test negatives are drawn too, for so many repeats.
VERY_MANY_CLASSES, FEW_REPEATS = 100, 5


@dataclasses.dataclass(frozen=True)
class Judged:
    """Precision, recall, F1 and average precision of every classifier against some negatives.

    Attributes:
      natural: metric -> [K], with as many negatives a positive as the test split has.
      nine: metric -> [K, repeats], with 9 drawn negatives a positive.
    """

    natural: dict[str, np.ndarray]
    nine: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Classifiers:
    """All binary classifiers of a network.

    Attributes:
      train, test, outside: their scores.
      ratio: negatives a positive in the test split, [K].
      thresholds: of best training F1 at that ratio, [K]; nan for a class without examples.
      thresholds_nine: the same at 9 negatives a positive, [K].
      inside: against the other classes' test images.
      beyond: against images of another data set, or None.
      drawn: training negatives for each positive, None if all.
      seconds: that the training scores took, without compiling.
    """

    train: Scores
    test: Scores
    outside: Scores | None
    ratio: np.ndarray
    thresholds: np.ndarray
    thresholds_nine: np.ndarray
    inside: Judged
    beyond: Judged | None
    drawn: int | None
    seconds: float


def measure(family: CodedFamily, subject: Subject, outside: bool = True) -> Classifiers:
    """Scores, thresholds and quality of every class's binary classifier.

    Args:
      family: with its network.
      subject: with its weights and data; the option ``negatives`` is used.
      outside: whether to look at out-of-distribution images, where the subject has some.
    """
    classes = family.model.num_classes
    train_count, test_count = counts(subject, classes)
    scorer = Scorer(family, subject)
    train = scorer.split("train", train_count)
    seconds = scorer.seconds
    test = scorer.split("test", test_count)
    far = scorer.outside(test_count) if outside and subject.outside is not None else None
    ratio = natural_ratio(test.labels, classes)
    repeats = REPEATS if test_count is None else FEW_REPEATS
    thresholds = choose_thresholds(train, ratio)
    nine = choose_thresholds(train, np.where(np.isnan(ratio), np.nan, RATIO))
    return Classifiers(
        train,
        test,
        far,
        ratio,
        thresholds,
        nine,
        judge(test, test, ratio, thresholds, nine, subject.seed, repeats),
        None if far is None else judge(test, far, ratio, thresholds, nine, subject.seed, repeats),
        train_count,
        seconds,
    )


def counts(subject: Subject, classes: int) -> tuple[int | None, int | None]:
    """Negatives for each positive of the training and of the test split; None is all.

    Raises:
      ConfigError: the option ``negatives`` is neither "all" nor a number from 1.
    """
    asked = subject.options.get(OPTION.name)
    train = per_positive(asked, classes)
    if asked == "all" or classes <= VERY_MANY_CLASSES:
        return train, None
    return train, min(RATIO * FEW_REPEATS, classes - 2)


def classes_to_judge(subject: Subject) -> np.ndarray:
    """Classes with examples in the training split, for a threshold, and in the test split, [m]."""
    return np.intersect1d(subject.labels("train"), subject.labels("test"))


class Scorer:
    """Scores splits of a subject; each form of the network is compiled once.

    Attributes:
      seconds: that the last split took, without compiling.
    """

    seconds: float = 0.0

    def __init__(self, family: CodedFamily, subject: Subject) -> None:
        self._subject, self._classes = subject, family.model.num_classes
        self._all = _with_position(scores.every_class(family))
        self._pairs = _with_position(scores.every_pair(family))

    def split(self, name: str, count: int | None) -> Scores:
        """Test or training images, with all classes or ``count`` negatives for each positive."""
        examples, labels = self._subject.examples(name), self._subject.labels(name)
        pairs = None
        if count is not None:
            pairs = choose_pairs(labels, count, self._subject.seed)
        return self._scores(examples, labels, pairs, f"{name} images")

    def outside(self, count: int | None) -> Scores:
        """The out-of-distribution images, with all classes or ``count`` random ones."""
        examples = self._subject.outside
        assert examples is not None
        n, pairs = examples.num_examples, None
        if count is not None:
            pairs = scores.choose_classes(n, self._classes, count, self._subject.seed)
        title = self._subject.outside_name or "other images"
        return self._scores(examples, np.full(n, -1), pairs, title)

    def _scores(
        self, examples: Examples, labels: np.ndarray, pairs: np.ndarray | None, what: str
    ) -> Scores:
        title = f"binary classifiers on {what}"
        function = self._all if pairs is None else self._pairs
        arrays = {} if pairs is None else {"classes": pairs}
        batches = Timed(examples, position=np.arange(len(labels), dtype=np.int32), **arrays)
        values, read = self._subject.map(function, batches, title)
        self.seconds = batches.seconds()
        return Scores(values, labels[read], None if pairs is None else pairs[read])


def _with_position(function: Callable[..., Any]) -> Callable[..., tuple[Any, jax.Array]]:
    """The function, and which examples its rows are of: those that can be read."""
    return lambda variables, batch: (function(variables, batch), batch["position"])


class Timed(WithArrays):
    """Batches that note when each was asked for."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self._times: list[float] = []
        for batch in super().__iter__():
            self._times.append(time.perf_counter())
            yield batch
        self._times.append(time.perf_counter())

    def seconds(self) -> float:
        """What all batches took; the first, which compiles, counts as much as the others."""
        each = np.diff(self._times)
        return float(each[1:].mean() * len(each)) if len(each) > 1 else float(each.sum())


def natural_ratio(labels: np.ndarray, classes: int) -> np.ndarray:
    """Negatives a positive of every class, [K]; nan for a class that is not there."""
    own = np.bincount(labels, minlength=classes)[:classes].astype(np.float64)
    own[own == 0] = np.nan
    return (len(labels) - own) / own


def choose_thresholds(train: Scores, ratio: np.ndarray) -> np.ndarray:
    """Thresholds of best training F1 at given ratios, [K]; nan where a class has no examples."""
    found = np.full(len(ratio), np.nan)
    for a, (positives, negatives) in enumerate(train.by_class(len(ratio))):
        if len(positives) and np.isfinite(ratio[a]):
            weight = weight_for(ratio[a], positives, negatives)
            found[a] = binary.best_threshold(positives, negatives, weight)
    return found


def judge(
    own: Scores,
    other: Scores,
    ratio: np.ndarray,
    thresholds: np.ndarray,
    thresholds_nine: np.ndarray,
    seed: int,
    repeats: int,
) -> Judged:
    """Quality of every classifier.

    Args:
      own: gives the positives.
      other: gives the negatives; they are weighted so that there are ``ratio`` a positive.
      ratio, thresholds, thresholds_nine: [K].
      seed, repeats: of drawing 9 negatives a positive; the draw is a function of (seed, class,
        repeat).
    """
    classes = len(ratio)
    natural = {m: np.full(classes, np.nan) for m in METRICS}
    nine = {m: np.full((classes, repeats), np.nan) for m in METRICS}
    pairs = zip(own.by_class(classes), other.by_class(classes), strict=True)
    for a, ((positives, _), (_, negatives)) in enumerate(pairs):
        if not len(positives) or np.isnan(thresholds[a]):
            continue
        weight = weight_for(ratio[a], positives, negatives)
        for m, value in binary.scores_at(thresholds[a], positives, negatives, weight).items():
            natural[m][a] = value
        for r in range(repeats):
            drawn = draw_negatives(negatives, RATIO * len(positives), (seed, a, r))
            weight = weight_for(RATIO, positives, drawn)
            found = binary.scores_at(thresholds_nine[a], positives, drawn, weight)
            for m, value in found.items():
                nine[m][a, r] = value
            if drawn is negatives:  # all of them: the next draw is the same
                for m in METRICS:
                    nine[m][a] = nine[m][a, r]
                break
    return Judged(natural, nine)


def draw_negatives(negatives: np.ndarray, count: int, seed: tuple[int, ...]) -> np.ndarray:
    """``count`` different negatives, or all where there are no more."""
    if len(negatives) <= count:
        return negatives
    return np.random.default_rng(seed).choice(negatives, count, replace=False)


def means(judged: Judged, nine: bool = False) -> dict[str, float]:
    """Mean over classes (and repeats) of every metric; classes without examples are left out."""
    values = judged.nine if nine else judged.natural
    return {m: float(np.nanmean(v)) for m, v in values.items()}

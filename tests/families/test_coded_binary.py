"""Thresholds and scores of binary classifiers, against scikit-learn and small cases by hand."""

import numpy as np
import pytest
from sklearn import metrics

from branchnets.errors import DataError
from branchnets.families.coded.binary import best_threshold, curve, scores_at


def draw(seed, positives=30, negatives=200, decimals=None):
    random = np.random.default_rng(seed)
    scores = random.normal(1.0, 1, positives), random.normal(0.0, 1, negatives)
    return [np.round(s, decimals) if decimals is not None else s for s in scores]


@pytest.mark.parametrize("weight", [1.0, 0.25, 9.0])
@pytest.mark.parametrize("decimals", [None, 1])  # with one decimal there are many ties
@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_sklearn(seed, decimals, weight):
    positives, negatives = draw(seed, decimals=decimals)
    truth = np.r_[np.ones(len(positives)), np.zeros(len(negatives))]
    scores, weights = np.r_[positives, negatives], np.where(truth, 1.0, weight)
    threshold = best_threshold(positives, negatives, weight)
    found = scores_at(threshold, positives, negatives, weight)
    says = scores >= threshold
    assert found["precision"] == pytest.approx(
        metrics.precision_score(truth, says, sample_weight=weights)
    )
    assert found["recall"] == pytest.approx(metrics.recall_score(truth, says))
    assert found["f1"] == pytest.approx(metrics.f1_score(truth, says, sample_weight=weights))
    assert found["average_precision"] == pytest.approx(
        metrics.average_precision_score(truth, scores, sample_weight=weights)
    )
    # No other threshold is better.
    others = [
        metrics.f1_score(truth, scores >= t, sample_weight=weights) for t in np.unique(scores)
    ]
    assert found["f1"] == pytest.approx(max(others))


def test_small_cases_by_hand():
    # Yes from 3 up: TP 2, FP 1, FN 0, F1 = 4/5; yes from 4 up: TP 1, FP 0, FN 1, F1 = 2/3.
    assert best_threshold([4.0, 3.0], [3.5, 0.0]) == 1.5
    assert scores_at(1.5, [4.0, 3.0], [3.5, 0.0]) == pytest.approx(
        {"precision": 2 / 3, "recall": 1, "f1": 4 / 5, "average_precision": (1 + 2 / 3) / 2}
    )
    # With negatives that count ten times, the one between the positives costs too much.
    assert best_threshold([4.0, 3.0], [3.5, 0.0], weight=10) == 3.75
    assert scores_at(3.75, [4.0, 3.0], [3.5, 0.0])["recall"] == 0.5
    # Nothing is accepted.
    assert scores_at(9.0, [4.0, 3.0], [3.5])["precision"] == 0.0
    assert scores_at(9.0, [4.0, 3.0], [3.5])["f1"] == 0.0
    # Everything is.
    assert scores_at(-9.0, [1.0], [0.0, 0.0, 0.0])["precision"] == 0.25


def test_separable_classes_are_cut_in_the_middle_of_the_gap():
    assert best_threshold([5.0, 7.0], [1.0, 2.0]) == 3.5
    assert scores_at(3.5, [5.0, 7.0], [1.0, 2.0]) == dict.fromkeys(
        ("precision", "recall", "f1", "average_precision"), 1.0
    )


def test_ties_are_accepted_together():
    assert best_threshold([1.0, 1.0], [1.0, 0.0]) == 0.5
    constant = scores_at(1.0, [1.0], [1.0, 1.0, 1.0])
    assert constant["precision"] == constant["average_precision"] == 0.25
    assert curve([1.0, 1.0], [1.0]).true.tolist() == [2]


def test_a_threshold_between_neighbouring_float32_scores_still_tells_them_apart():
    low = np.float32(1.0)
    high = np.nextafter(low, np.float32(2))
    threshold = np.float32(best_threshold(np.array([high]), np.array([low])))
    assert high >= threshold and not low >= threshold


def test_degenerate_input():
    with pytest.raises(DataError, match="without positives"):
        best_threshold([], [1.0])
    with pytest.raises(DataError, match="without positives"):
        scores_at(0.0, [], [1.0])
    with pytest.raises(DataError, match="not numbers"):
        best_threshold([1.0], [np.nan])
    with pytest.raises(DataError, match="weight"):
        best_threshold([1.0], [0.0], weight=-1.0)
    # Without negatives everything is accepted.
    assert best_threshold([2.0, 1.0], []) == 1.0
    assert scores_at(1.0, [2.0, 1.0], [])["average_precision"] == 1.0

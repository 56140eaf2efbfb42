"""Drawing the negatives of binary classifiers: balanced, and the same for reports and slimming."""

import coded_subject
import numpy as np
import pytest

from branchnets.errors import ConfigError
from branchnets.families.coded import extract, negatives
from branchnets.families.coded.analysis import classifiers
from branchnets.families.coded.analysis.scores import Scores


def test_chosen_pairs_are_balanced_and_distinct():
    labels = np.random.default_rng(0).permutation(np.arange(400) % 20)
    pairs = negatives.choose_pairs(labels, 9, seed=5)
    np.testing.assert_array_equal(pairs[:, 0], labels)
    assert all(len(set(row)) == 10 for row in pairs)
    drawn = np.bincount(pairs[:, 1:].reshape(-1), minlength=20)
    np.testing.assert_array_equal(drawn, 9 * np.bincount(labels))
    np.testing.assert_array_equal(pairs, negatives.choose_pairs(labels, 9, seed=5))
    assert (pairs != negatives.choose_pairs(labels, 9, seed=6)).any()


def test_a_class_too_large_for_its_negatives_keeps_what_there_is():
    labels = np.array([0] * 30 + [1] * 5 + [2] * 5)
    pairs = negatives.choose_pairs(labels, 1, seed=0)
    drawn = pairs[pairs[:, 1] >= 0]
    assert (drawn[:, 0] != drawn[:, 1]).all() and 10 <= len(drawn) < 40


def test_the_negatives_of_a_class_are_those_of_its_pairs():
    labels = np.random.default_rng(1).permutation(np.arange(500) % 25)
    count = negatives.per_positive(None, 25)
    pairs = negatives.choose_pairs(labels, count, seed=3)
    # A score that says which image it is of.
    values = np.broadcast_to(np.arange(500.0)[:, None], pairs.shape)
    grouped = list(Scores(values, labels, pairs).by_class(25))
    drawn = negatives.draw(labels, (24, 0, 7), count, seed=3)
    for k, found in zip((24, 0, 7), drawn, strict=True):
        positives, others = grouped[k]
        np.testing.assert_array_equal(found, np.sort(others))
        np.testing.assert_array_equal(np.flatnonzero(labels == k), positives)
        assert len(found) == 9 * 20
    (everyone,) = negatives.draw(labels, (7,), None, seed=3)
    np.testing.assert_array_equal(everyone, np.flatnonzero(labels != 7))


@pytest.mark.parametrize("asked", [None, "3"])
def test_a_report_and_a_slimmed_network_agree(family, variables, asked):
    subject = coded_subject.make_subject(family, variables, negatives=asked)
    measured = classifiers.measure(family, subject)
    slimmed = family.slim(subject, classes=("c",), negatives=asked)
    assert slimmed.thresholds[0] == pytest.approx(measured.thresholds[2], rel=1e-5, abs=1e-5)
    for metric, values in measured.inside.natural.items():
        assert slimmed.record["scores"]["c"][metric] == pytest.approx(values[2], abs=1e-6)


@pytest.mark.parametrize(
    ("asked", "classes", "count"),
    [
        (None, 20, None),
        (None, 21, 9),
        ("all", 1000, None),
        ("4", 10, 4),
        (4, 10, 4),
        ("9", 10, None),  # nine others of equal size are all there are
    ],
)
def test_how_many_are_drawn(asked, classes, count):
    assert negatives.per_positive(asked, classes) == count


@pytest.mark.parametrize("asked", ["some", "0", "-1", 2.5])
def test_bad_numbers(asked):
    with pytest.raises(ConfigError, match="negatives is all or a whole number from 1"):
        negatives.per_positive(asked, 10)


def test_both_tools_have_one_option(family):
    assert negatives.OPTION in extract.OPTIONS
    assert negatives.OPTION in family.analyses()["binary"].options

"""Scores of binary classifiers: against masks one by one; pairs against the whole matrix."""

import dataclasses

import coded_subject
import jax
import numpy as np
import pytest

from branchnets.errors import ConfigError
from branchnets.families.coded import binary
from branchnets.families.coded.analysis import classifiers, early, energies, parts, passes, scores
from branchnets.families.coded.analysis.scores import Scores


@pytest.fixture(scope="module")
def subject(family, variables):
    return coded_subject.make_subject(family, variables, outside=True)


@pytest.fixture(scope="module")
def matrix(family, subject):
    return classifiers.Scorer(family, subject).split("test", None)


def test_the_matrix_is_the_masked_network(family, variables, subject, matrix):
    images, _ = coded_subject.images_of(subject, "test")
    run = jax.jit(lambda v, x, kept: family.model.apply(v, x, remove=kept).logits)
    scale = np.abs(matrix.values).max()
    assert matrix.values.shape == (37, 10)
    for a in range(10):
        kept = {
            block: np.tile(scheme.codewords[a].astype(np.float32), (37, 1))
            for block, scheme in family.schemes.items()
        }
        logits = run(variables, images, kept)
        np.testing.assert_allclose(matrix.values[:, a], logits[:, a], atol=1e-5 * scale)


def test_images_that_cannot_be_read_are_in_no_score(family, subject, matrix):
    unread = (3, 20)

    def examples(name):
        return coded_subject.Unread(subject.examples(name), unread)

    some = dataclasses.replace(subject, examples=examples)
    found = classifiers.Scorer(family, some).split("test", None)
    np.testing.assert_array_equal(found.labels, np.delete(subject.labels("test"), unread))
    scale = np.abs(matrix.values).max()
    wanted = np.delete(matrix.values, unread, axis=0)
    np.testing.assert_allclose(found.values, wanted, atol=1e-5 * scale)
    maps, n = energies.energy_maps(family, some)
    labels = early.labels(family, some)
    assert n == len(labels) == 35
    own = early.energies(family, some)
    for block, values in own.items():
        np.testing.assert_allclose(maps[block][4], values[labels == 4].mean(0), rtol=1e-5)
    scores_of_class = family.slim(some, classes=("c",)).record["scores"]["c"]
    assert scores_of_class["positives"] + scores_of_class["negatives"] == 35


def test_pairs_are_entries_of_the_matrix(family, subject, matrix):
    found = classifiers.Scorer(family, subject).split("test", 4)
    np.testing.assert_array_equal(found.classes[:, 0], subject.labels("test"))
    wanted = np.take_along_axis(matrix.values, np.maximum(found.classes, 0), axis=1)
    scale = np.abs(matrix.values).max()
    np.testing.assert_allclose(found.values, wanted, atol=1e-5 * scale)


@pytest.mark.parametrize(("batch_size", "devices"), [(5, 1), (16, 8)])
def test_neither_batch_size_nor_devices_matter(family, variables, matrix, batch_size, devices):
    subject = coded_subject.make_subject(family, variables, batch_size, devices)
    again = classifiers.Scorer(family, subject).split("test", None)
    scale = np.abs(matrix.values).max()
    np.testing.assert_allclose(again.values, matrix.values, atol=1e-5 * scale)


def test_concatenated_branches_are_silenced():
    family = coded_subject.make_family(**{"model.aggregate": "concat"})
    variables = coded_subject.make_variables(family.model)
    subject = coded_subject.make_subject(family, variables)
    images, _ = coded_subject.images_of(subject, "test")
    found = classifiers.Scorer(family, subject).split("test", None)
    kept = {b: np.tile(s.codewords[3], (37, 1)) for b, s in family.schemes.items()}
    logits = coded_subject.apply(family.model, variables, images, remove=kept).logits
    np.testing.assert_allclose(found.values[:, 3], logits[:, 3], rtol=1e-4, atol=1e-4)


def test_classes_for_images_of_no_class_are_distinct():
    chosen = scores.choose_classes(50, 12, 9, seed=0)
    assert chosen.shape == (50, 9) and all(len(set(row)) == 9 for row in chosen)
    assert chosen.min() >= 0 and chosen.max() == 11


def test_grouping_by_class():
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    pairs = Scores(values, np.array([0, 1, 0]), np.array([[0, 1], [1, 2], [0, -1]]))
    found = [(p.tolist(), n.tolist()) for p, n in pairs.by_class(3)]
    assert found == [([0, 4], []), ([2], [1]), ([], [3])]
    full = Scores(values, np.array([0, 1, -1]))
    assert [(p.tolist(), n.tolist()) for p, n in full.by_class(2)] == [
        ([0], [2, 4]),
        ([3], [1, 5]),
    ]


def test_quality_is_that_of_every_class_by_hand(family, subject, matrix):
    measured = classifiers.measure(family, subject)
    np.testing.assert_allclose(measured.test.values, matrix.values, rtol=1e-6)
    train, labels = measured.train.values, subject.labels("train")
    test, test_labels = matrix.values, subject.labels("test")
    for a in (0, 7):
        positives, negatives = test[test_labels == a, a], test[test_labels != a, a]
        ratio = len(negatives) / len(positives)
        assert measured.ratio[a] == ratio
        own, others = train[labels == a, a], train[labels != a, a]
        # A threshold at the test's ratio: each training negative weighs so much.
        weight = ratio * len(own) / len(others)
        assert measured.thresholds[a] == binary.best_threshold(own, others, weight)
        found = binary.scores_at(measured.thresholds[a], positives, negatives)
        for metric, value in found.items():
            assert measured.inside.natural[metric][a] == pytest.approx(value)
        far = measured.outside.values[:, a]
        beyond = binary.scores_at(
            measured.thresholds[a], positives, far, ratio * len(positives) / len(far)
        )
        assert measured.beyond.natural["precision"][a] == pytest.approx(beyond["precision"])
        # The same positives and threshold: the same recall (appendix C).
        assert measured.beyond.natural["recall"][a] == measured.inside.natural["recall"][a]
    assert measured.inside.nine["f1"].shape == (10, classifiers.REPEATS)


def test_nine_negatives_are_drawn_without_replacement():
    negatives = np.arange(100.0)
    drawn = classifiers.draw_negatives(negatives, 18, (0, 1, 2))
    assert len(set(drawn)) == 18
    assert (drawn != classifiers.draw_negatives(negatives, 18, (0, 1, 3))).any()
    assert classifiers.draw_negatives(negatives[:18], 18, (0, 0, 0)).tolist() == list(range(18))


def test_drawn_training_negatives(family, variables):
    subject = coded_subject.make_subject(family, variables, negatives="3")
    measured = classifiers.measure(family, subject)
    assert measured.train.classes.shape == (60, 4) and measured.test.classes is None
    for positives, negatives in measured.train.by_class(10):
        assert len(negatives) == 3 * len(positives)
    with pytest.raises(ConfigError, match="all or a whole number"):
        classifiers.measure(family, coded_subject.make_subject(family, variables, negatives="some"))


def test_how_many_negatives_by_default(subject):
    assert classifiers.counts(subject, 10) == (None, None)
    assert classifiers.counts(subject, 100) == (9, None)
    assert classifiers.counts(subject, 1000) == (9, 45)


def test_a_class_without_examples_is_left_out():
    values = np.array([[1.0, 5], [0, 6], [2, 0]])
    own = Scores(values, np.array([0, 1, 0]))
    ratio = classifiers.natural_ratio(np.array([0, 0, 0]), 2)
    thresholds = classifiers.choose_thresholds(own, ratio)
    judged = classifiers.judge(own, own, ratio, thresholds, thresholds, seed=0, repeats=2)
    assert ratio[0] == 0 and np.isnan(ratio[1]) and np.isnan(thresholds[1])
    assert np.isnan(judged.natural["f1"][1]) and classifiers.means(judged)["recall"] == 1


def test_what_the_ways_to_score_cost(family):
    active = {block: scheme.active for block, scheme in family.schemes.items()}
    shares = passes.shares(family.model, active, coded_subject.SHAPE)
    naive, shared, drawn, masked = passes.ways(shares, 10, 100, 3)
    assert shares.prefix < shares.small < shares.full
    assert (naive.passes, drawn.passes) == (1000, 400)
    assert naive.macs == 1000 * shares.small
    assert naive.macs - shared.macs == 900 * shares.prefix
    assert masked.macs == 100 * shares.prefix + 400 * (shares.full - shares.prefix)
    assert len(passes.ways(shares, 10, 100, 9)) == 2  # nine are all


@pytest.mark.slow
def test_thirteen_million_passes_on_imagenet():
    from branchnets import create_model

    model = create_model("coded_resnext50_32x4d_imagenet", num_classes=1000)
    active = {b: 16 if b.startswith("stage4") else 8 for b in model.coded_blocks()}
    shares = passes.shares(model, active, (160, 160, 3))
    drawn = passes.ways(shares, 1000, 1_281_167, 9)[2]
    assert drawn.passes == 12_811_670
    # The published shares: a classifier is 0.696 of the network, its prefix 62 % of it.
    assert shares.small / shares.full == pytest.approx(0.696, abs=0.002)
    assert shares.prefix / shares.small == pytest.approx(0.62, abs=0.005)


def test_labels_are_read_without_any_image(subject):
    class Unseen(parts.WithArrays):
        def __iter__(self):
            raise AssertionError("an image was asked for")

    blind = dataclasses.replace(subject, examples=lambda name: Unseen(subject.examples(name)))
    labels = blind.labels("test")
    np.testing.assert_array_equal(labels, coded_subject.images_of(subject, "test")[1])
    assert labels.dtype == np.int32

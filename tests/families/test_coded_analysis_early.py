"""Early decoding and leaving early: end points, small cases by hand, multiply-adds."""

import dataclasses

import coded_subject
import numpy as np
import pytest

from branchnets.counting import count_macs, describe
from branchnets.errors import DataError
from branchnets.families.coded import losses
from branchnets.families.coded.analysis import early, leaving_report
from branchnets.families.coded.analysis.early import Decoded


@pytest.fixture(scope="module")
def decoded(family, variables):
    return early.decode(family, coded_subject.make_subject(family, variables))


def test_what_the_decoders_say(family, variables, decoded):
    subject = coded_subject.make_subject(family, variables)
    images, labels = coded_subject.images_of(subject, "test")
    output = coded_subject.apply(family.model, variables, images)
    assert decoded.names == ("stage3/block0", "stage4/block0", "final")
    for i, block in enumerate(decoded.names[:-1]):
        words = family.schemes[block].codewords
        predicted, confidence = losses.decode(output.energies[block], words)
        np.testing.assert_array_equal(decoded.right[:, i], predicted == labels)
        np.testing.assert_allclose(decoded.confidence[:, i], confidence, rtol=1e-4)
        # Eq. 7 in numpy, one image at a time; the label among the five nearest codewords.
        for n in (0, 9, 30):
            v = np.asarray(output.energies[block][n])
            v = v * words[0].sum() / v.sum()
            distance = np.linalg.norm(v - words, axis=1)
            assert decoded.right[n, i] == (distance.argmin() == labels[n])
            assert decoded.top5[n, i] == ((distance < distance[labels[n]]).sum() < 5)
    np.testing.assert_array_equal(decoded.right[:, -1], output.logits.argmax(-1) == labels)


@pytest.mark.parametrize(("batch_size", "devices"), [(7, 1), (16, 8)])
def test_neither_batch_size_nor_devices_matter(family, variables, decoded, batch_size, devices):
    subject = coded_subject.make_subject(family, variables, batch_size, devices)
    again = early.decode(family, subject)
    np.testing.assert_array_equal(again.right, decoded.right)
    np.testing.assert_allclose(again.confidence, decoded.confidence, rtol=1e-4)


def test_the_ends_of_leaving_early(decoded):
    macs = np.array([10.0, 20.0, 40.0])
    # Thresholds of other examples, all more and all less confident than these.
    for shift in (0.5, 0, -0.5):
        other = dataclasses.replace(decoded, confidence=decoded.confidence + shift)
        thresholds = early.choose_thresholds(other, steps=11)
        found = early.leave_early(decoded, macs, thresholds)
        assert found.accuracy[0] == decoded.right[:, 0].mean() and found.macs[0] == 10
        assert found.accuracy[-1] == decoded.right[:, -1].mean() and found.macs[-1] == 40
        assert found.left[0].tolist() == [1, 0, 0] and found.left[-1].tolist() == [0, 0, 1]
        np.testing.assert_allclose(found.left.sum(1), 1)
        np.testing.assert_allclose(found.left @ macs, found.macs)


RIGHT = np.array([[1, 0, 1], [0, 1, 1], [0, 0, 1], [1, 1, 0]], bool)
CONFIDENCE = np.array([[0.9, 0.1, 1], [0.2, 0.8, 1], [0.1, 0.2, 1], [0.8, 0.3, 1]], np.float32)
BY_HAND = Decoded(("a", "b", "final"), RIGHT, RIGHT, CONFIDENCE)


def test_leaving_early_by_hand():
    thresholds = early.choose_thresholds(BY_HAND, steps=3)
    # q = 1/2: the lower of the middle two.
    np.testing.assert_allclose(thresholds[1], [0.2, 0.2])
    found = early.leave_early(BY_HAND, np.array([1.0, 2.0, 4.0]), thresholds)
    assert found.left[1].tolist() == [0.75, 0.25, 0]
    assert found.right[1].tolist() == [True, False, False, True]
    assert found.accuracy[1] == 0.5 and found.macs[1] == (1 + 1 + 2 + 1) / 4


def test_a_point_chosen_on_one_split_is_judged_on_another():
    cost = np.array([1.0, 2.0, 4.0])
    thresholds = np.array([[-np.inf] * 2, [0.5, 0.5], [np.inf] * 2])
    # Where the point is chosen, the sure answers of the blocks are right and cost nothing.
    sure = dataclasses.replace(BY_HAND, right=RIGHT | [[1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0]])
    chosen = early.leave_early(sure, cost, thresholds)
    assert early.cheapest(chosen, 0.0) == 1 and early.cheapest(chosen, 1.0) == 0
    # Here they are wrong: the same point, which this split would not have chosen.
    wrong = dataclasses.replace(BY_HAND, right=RIGHT & [[0, 0, 1], [0, 0, 1], [1, 1, 1], [0, 0, 1]])
    tested = early.leave_early(wrong, cost, thresholds)
    assert early.cheapest(tested, 0.0) == 2
    point = leaving_report.judge(chosen, tested, 0.0)
    assert point.index == 1 and point.there == 0.25
    assert point.change == -0.5 and point.interval[0] < -0.5 < point.interval[1]
    assert point.saved == 1 - (1 + 2 + 4 + 1) / 16


@pytest.mark.parametrize(
    ("there", "studied", "split"),
    [
        (("train", "validation", "test"), "test", "validation"),
        (("train", "test"), "test", "train"),
        (("train", "validation", "test"), "validation", "train"),
        (("train", "validation", "test"), "train", "validation"),
        (("train", "test"), "train", None),
    ],
)
def test_thresholds_are_chosen_on_another_split_than_is_studied(
    family, variables, decoded, there, studied, split
):
    whole = coded_subject.make_subject(family, variables)

    def examples(name):
        if name not in there:
            raise DataError(f"no {name}")
        return whole.examples("train" if name == "validation" else name)

    subject = dataclasses.replace(whole, examples=examples, studied=studied)
    assert early.choosing_split(subject) == split
    cost = np.array([10.0, 20.0, 40.0])
    found = leaving_report.study(family, subject, decoded, cost)
    own = early.leave_early(decoded, cost, early.choose_thresholds(decoded))
    assert np.array_equal(found.leaving.macs, own.macs) == (split is None)
    assert bool(found.figures_of_merit) == (split is not None)
    text = leaving_report.text(decoded, cost, found)
    assert ("no other split" in text) == (split is None)
    assert f"chosen on the {split} images" in text or split is None
    assert ("was trained with these images" in text) == (split == "train")


def test_multiply_adds_until_a_block(family, variables):
    model = family.model
    macs = early.macs_until(model, family.schemes, coded_subject.SHAPE)
    one, two = (np.zeros((b, *coded_subject.SHAPE), np.float32) for b in (1, 2))
    decoding = sum(s.codewords.size for s in family.schemes.values())
    assert macs["final"] == describe(model, coded_subject.SHAPE).macs + decoding

    def until(images):
        return model.apply(variables, images, stop="stage4/block0").features

    before = count_macs(until, two) - count_macs(until, one)
    # stage4/block0 on 4x4 maps of 128 channels, N = 10, D = 12: reduction, grouped 3x3 with
    # stride 2, moments, their product with the Gram matrices.
    own = 16 * 128 * 120 + 4 * 9 * 12 * 120 + 4 * 120 * 12 + 120 * 12
    assert macs["stage4/block0"] == before + own + decoding
    assert list(macs) == ["stage3/block0", "stage4/block0", "final"]

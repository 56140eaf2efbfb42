"""Early decoding and leaving early: end points, small cases by hand, multiply-adds."""

import coded_subject
import numpy as np
import pytest

from branchnets.counting import count_macs, describe
from branchnets.families.coded import losses
from branchnets.families.coded.analysis import early
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
    found = early.leave_early(decoded, macs, steps=11)
    assert found.accuracy[0] == decoded.right[:, 0].mean() and found.macs[0] == 10
    assert found.accuracy[-1] == decoded.right[:, -1].mean() and found.macs[-1] == 40
    assert found.left[0].tolist() == [1, 0, 0] and found.left[-1].tolist() == [0, 0, 1]
    np.testing.assert_allclose(found.left.sum(1), 1)
    np.testing.assert_allclose(found.left @ macs, found.macs)


def test_leaving_early_by_hand():
    right = np.array([[1, 0, 1], [0, 1, 1], [0, 0, 1], [1, 1, 0]], bool)
    confidence = np.array([[0.9, 0.1, 1], [0.2, 0.8, 1], [0.1, 0.2, 1], [0.8, 0.3, 1]], np.float32)
    decoded = Decoded(("a", "b", "final"), right, right, confidence)
    found = early.leave_early(decoded, np.array([1.0, 2.0, 4.0]), steps=3)
    # q = 1/2: thresholds 0.2 and 0.2 (the lower of the middle two).
    assert found.left[1].tolist() == [0.75, 0.25, 0]
    assert found.accuracy[1] == 0.5 and found.macs[1] == (1 + 1 + 2 + 1) / 4


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

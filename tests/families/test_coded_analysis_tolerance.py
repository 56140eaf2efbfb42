"""What a code tolerates: exact codewords against the theory, mistakes counted in digits."""

import itertools

import numpy as np
import pytest

from branchnets.families.coded import losses
from branchnets.families.coded.analysis import tolerance
from branchnets.families.coded.codes import load_scheme

SCHEME = load_scheme("cifar10_3of10")
LABELS = np.arange(10, dtype=np.int32)


def test_exact_codewords_survive_what_the_distance_guarantees():
    found = tolerance.measure(10 / 3 * SCHEME.codewords, LABELS, SCHEME, draws=8, seed=0)
    assert found.guaranteed == 1
    np.testing.assert_array_equal(found.accuracy[:, :2], 1.0)
    np.testing.assert_array_equal(found.accuracy, found.ideal)
    # With every branch wrong each class is the complement of its codeword, the farthest there is.
    np.testing.assert_array_equal(found.accuracy[:, 10], 0.0)
    assert not len(found.distances)


def test_two_wrong_branches_can_be_too_many_for_distance_4():
    words = SCHEME.codewords[:1].astype(np.float32)
    for pair in itertools.combinations(range(10), 2):
        wrong = np.zeros((1, 10), np.float32)
        wrong[0, list(pair)] = 1
        flipped = np.asarray(tolerance.flip(words * 10 / 3, words, wrong))
        assert set(np.round(flipped[0] * 3 / 10, 5)) <= {0.0, 1.0}
        answer, _ = losses.decode(flipped, SCHEME.codewords)
        nearest = np.abs(SCHEME.codewords - flipped * 3 / 10).sum(1)
        if nearest[0] < np.delete(nearest, 0).min():
            assert int(answer[0]) == 0


def test_mistakes_are_measured_in_digits():
    energies = 10 / 3 * SCHEME.codewords.astype(np.float32)
    energies[0] = energies[1]  # class 0 looks like class 1
    found = tolerance.measure(energies, LABELS, SCHEME, draws=2, seed=0)
    between = np.sum(SCHEME.codewords[0] != SCHEME.codewords[1])
    assert found.distances.tolist() == [between]
    assert found.accuracy[:, 0] == pytest.approx(0.9)

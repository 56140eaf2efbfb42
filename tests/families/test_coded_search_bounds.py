"""Upper bounds on constant-weight codes, against values that are known exactly."""

import itertools
import math

import numpy as np
import pytest

from branchnets.families.coded.search import bounds, cliques, packed


@pytest.mark.parametrize(
    ("n", "d", "w", "words"),
    [  # exact values of A(n, d, w): Steiner systems, Hadamard designs, the Golay code
        (7, 4, 3, 7),
        (8, 4, 4, 14),
        (23, 8, 7, 253),
        (24, 8, 8, 759),
        (24, 8, 12, 2576),
        (32, 4, 4, 1240),
    ],
)
def test_linear_programming_is_exact_where_a_design_is(n, d, w, words):
    assert bounds.delsarte_bound(n, d, w) == words
    assert bounds.upper_bound(n, d, w) == words


@pytest.mark.parametrize(
    ("n", "d", "w", "words"),
    [
        (32, 14, 16, 295),
        (32, 10, 8, 442),
        (32, 6, 4, 82),
        (20, 10, 8, 21),
        (20, 6, 4, 31),
        (10, 6, 5, 6),
        (10, 6, 3, 3),
    ],
)
def test_linear_programming_for_the_papers_schemes(n, d, w, words):
    assert bounds.delsarte_bound(n, d, w) == words
    assert bounds.delsarte_bound(n, d - 1, w) == words  # odd distances are not there
    assert bounds.delsarte_bound(n, d, n - w) == words  # complement


def test_ends_of_the_range():
    assert bounds.upper_bound(9, 2, 4) == bounds.delsarte_bound(9, 1, 4) == math.comb(9, 4)
    assert bounds.upper_bound(9, 10, 4) == 1
    assert bounds.upper_bound(9, 8, 4) == bounds.johnson_bound(9, 8, 4) == 2


@pytest.mark.parametrize(("n", "w"), [(6, 3), (7, 3), (8, 3), (8, 4)])
def test_no_bound_is_below_the_truth(n, w):
    words = packed.all_words(n, w)
    for d in range(2, 2 * w + 1, 2):
        adjacent = packed.overlaps(words, words) <= w - d // 2
        size = 1
        while cliques.exact_clique(adjacent, size + 1, first=0)[0] is not None:
            size += 1
        assert bounds.delsarte_bound(n, d, w) >= size
        assert bounds.johnson_bound(n, d, w) >= size


def test_large_numbers_stay_bounds():
    # Far above what any code has; only that nothing overflows or falls below a known code.
    assert bounds.delsarte_bound(64, 24, 32) >= 30366  # weight 32 of the [64, 16, 24] code
    assert bounds.upper_bound(64, 4, 32) >= math.comb(64, 32) // 64
    assert bounds.delsarte_bound(64, 4, 32) <= math.comb(64, 32)


def test_eigenvalues_diagonalise_the_scheme():
    """sum over pairs at distance 2 i of any code, weighted by E_i(k)/v_i, is not negative."""
    rng = np.random.default_rng(0)
    words = packed.random_words(12, 5, 40, rng)
    shared = packed.overlaps(words, words)
    counts = [(shared == 5 - i).sum() for i in range(6)]
    table = bounds._eigenvalues(12, 5)
    for k in range(5):
        assert sum(float(table[i][k]) * counts[i] for i in range(6)) >= -1e-9


def test_largest_distance():
    requests = [(1000, 32, 16, 12), (1000, 32, 8, 8), (1000, 32, 24, 8), (1000, 32, 4, 4)]
    requests += [(100, 20, 8, 8), (100, 20, 4, 4), (10, 10, 5, 4), (10, 10, 3, 4), (252, 10, 5, 2)]
    for k, n, a, d in requests:
        assert bounds.largest_distance(k, n, a) == d
        assert bounds.upper_bound(n, d, a) >= k > bounds.upper_bound(n, d + 2, a)
    assert bounds.largest_distance(1, 10, 3) == bounds.largest_distance(2, 10, 3) == 6


def test_names():
    assert bounds.bound_name(32, 14, 16) == "linear-programming bound"
    assert bounds.bound_name(32, 10, 8) == "Johnson's bound"
    assert all(
        bounds.upper_bound(n, d, w) >= bounds.upper_bound(n, d + 2, w)
        for n, d, w in itertools.product((9, 16, 20), (2, 4, 6, 8), (4, 6, 8))
    )

"""Cliques, greedy codes, balance, and the search that uses them all."""

import numpy as np
import pytest

from branchnets.families.coded.search import (
    balance,
    cliques,
    greedy,
    packed,
    repel,
    search,
    strategies,
)
from branchnets.families.coded.search.clock import Clock
from branchnets.families.coded.search.problem import Request
from branchnets.families.coded.search.strategies import Target


def pairwise(words, limit):
    return packed.overlaps(words, words) <= limit


def test_heavy_clique_is_a_clique_of_the_best_weight():
    rng = np.random.default_rng(0)
    adjacent = rng.random((60, 60)) < 0.3
    adjacent = adjacent | adjacent.T
    planted = rng.permutation(60)[:12]
    adjacent[np.ix_(planted, planted)] = True
    weights = rng.integers(1, 4, 60)
    found = cliques.heavy_clique(adjacent, weights, 10**6, np.random.default_rng(1))
    assert weights[found].sum() >= weights[planted].sum()
    inside = adjacent[np.ix_(found, found)]
    assert (inside | np.eye(len(found), dtype=bool)).all()
    assert not len(cliques.heavy_clique(adjacent[:0, :0], weights[:0], 1, rng))


@pytest.mark.parametrize(("n", "d", "w", "most"), [(7, 4, 3, 7), (8, 4, 4, 14), (10, 6, 5, 6)])
def test_exact_clique_finds_the_largest_and_proves_it(n, d, w, most):
    words = packed.all_words(n, w)
    adjacent = pairwise(words, w - d // 2)
    found, complete = cliques.exact_clique(adjacent, most, first=0)
    assert len(found) >= most and complete
    assert packed.min_distance(words[found]) >= d
    assert cliques.exact_clique(adjacent, most + 1, first=0) == (None, True)
    assert cliques.exact_clique(adjacent, most + 1, nodes=1) == (None, False)


def test_lexicode_is_algorithm_1():
    words = packed.all_words(12, 5)
    taken = []
    for word in words:  # lines 14 to 16 of Algorithm 1 as they stand
        if all(packed.overlaps(word[None], other[None])[0, 0] <= 3 for other in taken):
            taken.append(word)
    assert np.array_equal(greedy.lexicode(words, 3, 10**6), np.stack(taken))
    assert np.array_equal(greedy.lexicode(words, 3, 5), np.stack(taken[:5]))
    start = packed.random_words(12, 5, 1, np.random.default_rng(0))
    more = greedy.lexicode(words, 3, 10**6, start=start)
    assert np.array_equal(more[0], start[0]) and packed.min_distance(more) >= 4


def test_algorithm_1_gives_a_code_for_cifar_100():
    rng = np.random.default_rng(0)
    words = greedy.word_list(20, 8, rng, shuffle=False)
    assert len(greedy.lexicode(words, 4, 1000)) == 130
    other = greedy.word_list(20, 8, rng, shuffle=True)
    assert len(other) == len(words) and not np.array_equal(other, words)


def test_choose_blocks():
    sizes = [480, 480, 32, 16, 4, 4, 4, 4]
    chosen = balance.choose_blocks(sizes, 1000)
    assert sum(sizes[i] for i in chosen) == 1000 and len(set(chosen)) == len(chosen)
    assert balance.choose_blocks([3, 3, 3], 4) is None
    assert balance.choose_blocks([3, 3, 4], 7) is not None


@pytest.mark.parametrize(("classes", "spread"), [(100, 0), (93, 1)])
def test_choose_words(classes, spread):
    words = greedy.lexicode(packed.all_words(20, 4), 2, 10**6)
    chosen = balance.choose_words(words, classes, 20, np.random.default_rng(0))
    assert len(np.unique(chosen)) == classes
    assert balance.spread(words[chosen], 20) == spread == balance.least_spread(classes, 20, 4)


def test_mend_keeps_distances_and_weights():
    words = greedy.lexicode(packed.all_words(16, 6), 4, 40)
    before = balance.spread(words, 16)
    after = balance.mend(words, 16, 4, np.random.default_rng(0))
    assert balance.spread(after, 16) < before
    assert packed.min_distance(after) >= 4 and (packed.weights(after) == 6).all()


def test_repel_drives_words_apart_or_says_no():
    rng = np.random.default_rng(0)
    start = packed.random_words(30, 10, 20, rng)
    words = repel.repel(start, 30, 4, rng)
    assert packed.min_distance(start) < 12 <= packed.min_distance(words)
    assert len(words) == 20 and (packed.weights(words) == 10).all()
    start = packed.random_words(10, 5, 7, rng)
    assert repel.repel(start, 10, 2, rng, steps=300) is None  # there are only 6


@pytest.mark.parametrize("name", [name for name, _, _ in search.STRATEGIES])
def test_what_strategies_yield_keeps_the_distance(name):
    strategy = {name: strategy for name, strategy, _ in search.STRATEGIES}[name]
    target = Target(20, 12, 4, 4)
    pools = list(strategy(target, np.random.default_rng(0), Clock().within(5)))
    assert pools
    for pool in pools:
        words = pool.words if pool.blocks else packed.all_words(12, 4)[:1]
        assert packed.min_distance(words) is None or packed.min_distance(words) >= 4
        assert (packed.weights(words) == 4).all()
        for block in pool.blocks:
            assert not pool.balanced or balance.spread(block, 12) == 0


@pytest.mark.parametrize(
    ("request_", "distance", "columns"),
    [
        ((10, 10, 5), 4, (5, 5)),
        ((10, 10, 3), 4, (3, 3)),
        ((10, 10, 7), 4, (7, 7)),
        ((100, 20, 8), 8, (40, 40)),
        ((100, 20, 4), 4, (20, 20)),
        ((1000, 32, 4), 4, (125, 125)),
        ((1000, 32, 16), 12, (500, 500)),
        ((14, 8, 4), 4, (7, 7)),
        ((7, 7, 3), 4, (3, 3)),
        ((759, 24, 8), 8, (253, 253)),
        ((253, 23, 16), 8, (176, 176)),
        ((13, 9, 4), 4, (5, 6)),
        ((2, 5, 2), 4, (0, 1)),
        ((3, 4, 1), 2, (0, 1)),
        ((252, 10, 5), 2, (126, 126)),
    ],
)
def test_the_best_scheme_is_found(request_, distance, columns):
    result = search.find(Request(*request_), budget=50)
    table = result.scheme.codewords.astype(int)
    assert table.shape == request_[:2] and (table.sum(1) == request_[2]).all()
    apart = (table[:, None] != table[None]).sum(-1) + 999 * np.eye(len(table), dtype=int)
    assert apart.min() == result.scheme.min_distance == distance
    assert (table.sum(0).min(), table.sum(0).max()) == columns
    assert result.optimal and result.finished


@pytest.mark.slow
@pytest.mark.parametrize(("active", "column"), [(8, 250), (24, 750)])
def test_random_linear_maps_find_the_scheme_of_8_of_32(active, column):
    result = search.find(Request(1000, 32, active), budget=120)
    assert result.scheme.min_distance == 8 and result.optimal
    assert (result.scheme.codewords.sum(0, dtype=int) == column).all()


def test_an_exhaustive_search_rules_out_what_the_bounds_do_not(monkeypatch):
    monkeypatch.setattr(search.bounds, "largest_distance", lambda *request: 6)
    result = search.find(Request(7, 10, 5), budget=60)
    assert result.exhausted == (6,) and result.largest == result.scheme.min_distance == 4
    assert result.optimal and result.finished


def test_one_class_and_one_seed():
    result = search.find(Request(1, 6, 2), budget=5)
    assert result.scheme.codewords.sum() == 2 and result.scheme.min_distance is None
    assert result.optimal and result.finished
    a, b = (search.find(Request(30, 16, 6), seed=7, budget=60).scheme for _ in range(2))
    assert np.array_equal(a.codewords, b.codewords)
    c = search.find(Request(30, 16, 6), seed=8, budget=60).scheme
    assert not np.array_equal(a.codewords, c.codewords)


def test_a_distance_that_is_asked_for_is_enough():
    result = search.find(Request(50, 20, 8, 4), budget=30)
    assert result.scheme.min_distance >= 4 and result.finished and result.scheme.spread == 0
    odd = search.find(Request(50, 20, 8, 3), budget=30)
    assert np.array_equal(odd.scheme.codewords, result.scheme.codewords)


def test_the_budget_and_ctrl_c_end_it_with_the_best_so_far():
    seen = []
    result = search.find(Request(200, 24, 12), budget=0.2, announce=seen.append)
    assert result.scheme is seen[-1] and not result.optimal and not result.finished

    def stop(text):
        if text == "linear codes":
            raise KeyboardInterrupt

    result = search.find(Request(200, 24, 12), budget=60, report=stop)
    assert len(result.scheme.codewords) == 200


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ((0, 10, 5), "at least 1"),
        ((5, 1, 1), "2 to 128"),
        ((5, 10, 0), "nearest request is 1 active"),
        ((5, 10, 12), "nearest request is 9 active"),
        ((300, 10, 5), "only 252 of 5 ones among 10.*252 classes, or 11 branches"),
        ((100, 10, 2), "only 45.*45 classes, 3 active, or 15 branches"),
        ((10, 10, 5, 0), "at least 2 apart"),
        ((10, 10, 5, 6), r"at most 6 words can \(linear.*minimum distance of 4, or 6 classes"),
        ((10, 10, 5, 5), "all be 6 apart"),
        ((1000, 32, 8, 10), r"at most 436 words can \(Johnson.*minimum distance of 8"),
        ((2, 10, 3, 8), "at most 1 word can.*minimum distance of 6, or 1 classes"),
    ],
)
def test_impossible_requests_name_the_nearest(request_, message):
    with pytest.raises(ValueError, match=message):
        Request(*request_)


def test_exhaustive_looks_at_small_spaces_only():
    assert strategies.exhaustive(Target(7, 10, 5, 6), 10_000) == (None, True)
    assert strategies.exhaustive(Target(7, 30, 8, 6), 10_000) == (None, False)

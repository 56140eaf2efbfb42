"""Algebraic constructions: the field, cyclic codes, syndromes, and the schemes made of them."""

import itertools
import math
import pathlib

import numpy as np
import pytest

from branchnets.engine import config as configs
from branchnets.families.coded import codes
from branchnets.families.coded.search import bounds, field, linear, packed, syndromes

CONFIG = pathlib.Path(__file__).parents[2] / "configs/coded_imagenet.py"


@pytest.mark.parametrize("m", range(1, 9))
def test_field(m):
    table = field.powers_of_primitive(m)
    assert sorted(table) == list(range(1, 1 << m))
    assert field.power(0, 3, m) == 0 and field.power(0, 0, m) == 1
    for x in range(1, 1 << m):
        assert field.power(x, (1 << m) - 1, m) == 1
    squares = [field.power(x, 2, m) for x in range(1 << m)]
    for x, y in itertools.product(range(1 << m), repeat=2):
        assert squares[x ^ y] == squares[x] ^ squares[y]  # squaring adds up


def weight_counts(code):
    values, counts = np.unique(packed.weights(code.words()), return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def test_known_weight_distributions():
    bch = linear.cyclic_code(32, (0, 1, 3))
    assert weight_counts(bch) == {0: 1, 12: 496, 16: 1054, 20: 496, 32: 1}
    golay = linear.cyclic_code(24, (0, 1))
    assert weight_counts(golay) == {0: 1, 8: 759, 12: 2576, 16: 759, 24: 1}
    simplex = linear.cyclic_code(7, (1,))
    assert weight_counts(simplex) == {0: 1, 4: 7}


@pytest.mark.parametrize(("length", "distance"), [(15, 4), (16, 4), (23, 8), (32, 8)])
def test_grown_codes_keep_the_distance(length, distance):
    found = linear.cyclic_codes(length, distance, linear.CHECKED)
    assert max(len(code.generators) for code in found) >= length // 2 - 5
    for code in found[:20]:
        weight = packed.weights(code.words())
        assert all(w == 0 or w % 2 or w >= distance for w in weight)
        assert len(weight) == 1 << len(code.generators)


@pytest.mark.parametrize(
    ("n", "w", "d", "words"),
    [(24, 8, 8, 759), (24, 12, 8, 2576), (23, 7, 8, 253), (20, 8, 8, 130), (10, 5, 4, 10)],
)
def test_constant_weight_pools(n, w, d, words):
    best = 0
    for _, pool in linear.constant_weight_pools(n, w, d, np.random.default_rng(0)):
        assert (packed.weights(pool) == w).all() and packed.min_distance(pool) >= d
        best = max(best, len(pool))
    assert words <= best <= bounds.upper_bound(n, d, w)


@pytest.mark.parametrize(("n", "w", "d"), [(12, 4, 4), (13, 5, 6), (16, 6, 6), (16, 8, 8)])
def test_every_class_of_syndromes_keeps_the_distance(n, w, d):
    words = packed.all_words(n, w)
    for numbers in (
        syndromes.power_syndromes(words, n, d),
        syndromes.bch_syndromes(words, n, d),
        syndromes.modular_syndromes(words, n) if d == 4 else np.arange(len(words)),
    ):
        for number in np.unique(numbers)[:50]:
            distance = packed.min_distance(words[numbers == number])
            assert distance is None or distance >= d


def test_the_largest_class_is_at_least_the_mean():
    for _, pool in syndromes.pools(20, 4, 4, 100, np.random.default_rng(0)):
        assert len(pool) >= math.comb(20, 4) / 32 and packed.min_distance(pool) == 4


@pytest.mark.parametrize(
    ("name", "shape", "distance", "column"),
    [
        ("imagenet_16of32_d12", (1000, 32, 16), 12, 500),
        ("imagenet_8of32_d8", (1000, 32, 8), 8, 250),
        ("imagenet_24of32_d8", (1000, 32, 24), 8, 750),
    ],
)
def test_the_better_schemes(name, shape, distance, column):
    scheme = codes.load_scheme(name).require(*shape)
    table = scheme.codewords.astype(np.int16)
    apart = (table[:, None] != table[None]).sum(-1) + 99 * np.eye(1000, dtype=int)
    assert scheme.min_distance == apart.min() == distance
    assert (scheme.column_sums == column).all()
    assert bounds.upper_bound(32, distance + 2, shape[2]) < 1000  # nothing is better
    assert codes.scheme_for(*shape).name != name  # the paper's stays the default
    assert np.array_equal(codes.load_scheme(name).codewords, scheme.codewords)


@pytest.mark.parametrize("smoke", ["", "smoke,"])
@pytest.mark.parametrize("variant", ["paper", "c3", "c4"])
def test_the_config_takes_them_by_one_value(variant, smoke):
    from branchnets import data, families

    argument = f"{CONFIG}:{smoke}variant={variant}"
    assert configs.load(argument).coded.schemes == ()
    config = configs.load(f"{argument},codes=better")
    family = families.create(config, data.spec(None, config.data))
    best = {24: 8, 16: 12, 8: 8, 4: 4}
    assert family.schemes
    for scheme in family.schemes.values():
        assert scheme.min_distance == best[scheme.active]
        assert scheme.column_sums.min() == scheme.column_sums.max()


def test_the_config_refuses_other_codes():
    with pytest.raises(configs.ConfigError, match="unknown codes 'best'; known: paper, better"):
        configs.load(f"{CONFIG}:codes=best")

"""Packed words, groups of permutations and the orbits of words under them."""

import itertools
import math

import numpy as np
import pytest

from branchnets.families.coded.search import groups, orbits, packed


@pytest.mark.parametrize(("n", "w"), [(6, 3), (32, 2), (64, 2), (70, 2)])
def test_all_words(n, w):
    words = packed.all_words(n, w)
    table = packed.unpack(words, n)
    assert len(words) == len(np.unique(table, axis=0)) == math.comb(n, w)
    assert (table.sum(1) == w).all() and (packed.weights(words) == w).all()
    assert np.array_equal(packed.pack(table), words)
    numbers = [int("".join(map(str, row[::-1])), 2) for row in table]
    assert numbers == sorted(numbers)


@pytest.mark.parametrize("n", [20, 64, 100])
def test_distances_are_those_of_the_tables(n):
    words = packed.random_words(n, 8, 60, np.random.default_rng(0))
    table = packed.unpack(words, n).astype(int)
    distances = (table[:, None] != table[None]).sum(-1)
    assert np.array_equal(2 * (8 - packed.overlaps(words, words).astype(int)), distances)
    pairs = distances[np.triu_indices(60, 1)]
    assert packed.min_distance(words) == pairs.min()
    values, counts = np.unique(pairs, return_counts=True)
    assert packed.distance_histogram(words) == dict(
        zip(values.tolist(), counts.tolist(), strict=True)
    )
    few = words[:9]
    assert np.array_equal(packed.max_overlap(words, few), packed.overlaps(words, few).max(1))
    for limit in (0, 3, 7):
        assert np.array_equal(
            packed.compatible(words, few, limit), packed.max_overlap(words, few) <= limit
        )


def test_one_word_has_no_distance():
    assert packed.min_distance(packed.all_words(5, 2)[:1]) is None
    assert len(packed.max_overlap(packed.all_words(5, 2), packed.all_words(5, 2)[:0])) == 10


def is_group(permutations):
    rows = {tuple(row) for row in permutations}
    return len(rows) == len(permutations) and all(
        tuple(a[b]) in rows for a, b in itertools.product(permutations, permutations)
    )


@pytest.mark.parametrize(
    "group",
    [
        groups.abelian((12,)),
        groups.abelian((6, 2)),
        groups.abelian((2, 2, 2)),
        groups.dihedral(12),
        groups.semiregular(12, 4),
        groups.semiregular(12, 11),
        groups.multiplied(groups.abelian((12,)), 12, 5),
        groups.multiplied(groups.semiregular(12, 5), 5, 2),
        groups.abelian((2, 2, 2)).with_map("", groups.linear_map((2, 4, 3))),
    ],
    ids=lambda group: group.name,
)
def test_groups_are_groups(group):
    assert is_group(group.translations)
    assert is_group(orbits.elements(group))
    assert (group.translations[0] == np.arange(group.branches)).all()
    assert group.transitive == (
        len(group.translations) == group.branches and "cycles" not in group.name
    )


def test_abelian_types():
    assert groups.abelian_types(32)[0] == (2,) * 5
    assert len(groups.abelian_types(32)) == 7
    assert set(groups.abelian_types(20)) == {(20,), (10, 2)}
    assert groups.abelian_types(7) == [(7,)]
    assert all(math.prod(moduli) == 36 for moduli in groups.abelian_types(36))


@pytest.mark.parametrize("moduli", [(2, 2, 2, 2), (4, 2), (12,), (9, 3)])
def test_automorphisms_respect_sums(moduli):
    image = groups.random_automorphism(moduli, np.random.default_rng(3))
    table = groups.abelian(moduli).translations  # [a, b] is a + b
    assert sorted(image) == list(range(len(image)))
    assert np.array_equal(image[table], table[np.ix_(image, image)])


@pytest.mark.parametrize("n", [10, 32, 70])
def test_action_moves_ones(n):
    rng = np.random.default_rng(0)
    permutations = np.stack([rng.permutation(n) for _ in range(3)])
    words = packed.random_words(n, 4, 50, rng)
    images = groups.Action(permutations).images(words)
    for g, permutation in enumerate(permutations):
        expected = np.zeros((50, n), np.uint8)
        expected[:, permutation] = packed.unpack(words, n)
        assert np.array_equal(packed.unpack(images[:, g], n), expected)


def test_orbits_of_a_transitive_group_are_even_and_keep_their_distance():
    group = groups.multiplied(groups.abelian((13,)), 13, 3)
    words = orbits.candidates(group, 4, np.random.default_rng(0))
    assert len(words) == math.comb(12, 3)
    kept = orbits.distance_keeping(words, orbits.elements(group), 1)
    for block in orbits.orbits(kept, orbits.elements(group)):
        sums = packed.unpack(block, 13).sum(0)
        assert sums.min() == sums.max()
        assert packed.min_distance(block) >= 6


@pytest.mark.parametrize("group", [groups.abelian((12,)), groups.semiregular(12, 5)])
def test_representatives_are_one_word_an_orbit(group):
    words = orbits.candidates(group, 4, np.random.default_rng(0))
    assert orbits.listed(group, 4)
    all_kept = orbits.distance_keeping(words, group.translations, 3)
    few = orbits.distance_keeping(words, group.translations, 3, representatives=True)
    count = len(orbits.orbits(all_kept, group.translations))
    assert len(orbits.orbits(few, group.translations)) == count
    # All words with branch 0 hold some orbits' least words; all words hold every orbit's one.
    assert count <= len(few) < len(all_kept)


def test_compatibility_is_that_of_all_words():
    group = groups.abelian((13,))
    words = orbits.candidates(group, 4, np.random.default_rng(0))
    blocks = orbits.orbits(words, group.translations)[:20]
    table = orbits.compatibility(blocks, 2)
    for i, j in itertools.product(range(20), range(20)):
        assert table[i, j] == (packed.overlaps(blocks[i], blocks[j]).max() <= 2)


def test_invariant_words():
    permutation = groups.abelian((4, 4)).translations[5]
    words = orbits.invariant_words(permutation, 8, 50, np.random.default_rng(0))
    assert len(words) and (packed.weights(words) == 8).all()
    assert np.array_equal(groups.Action(permutation[None]).image(0, words), words)
    assert not len(orbits.invariant_words(permutation, 7, 50, np.random.default_rng(0)))


def test_half_of_the_elements_is_enough_for_distances():
    elements = orbits.elements(groups.abelian((7,)))[1:]
    assert len(orbits.up_to_inverses(elements)) == 3

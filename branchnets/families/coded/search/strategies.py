"""Ways to find words of one weight at a distance: each yields pools, as blocks of words.

A strategy takes a `Target` and yields (source, blocks): where they come from, and arrays of packed
words, any two of which keep the distance.  `balanced` says that each block uses every branch
equally often.  Strategies draw from a generator of their own, so what one finds does not depend
on how long another was let run.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np

from branchnets.families.coded.search import cliques, greedy, groups, linear, orbits, packed, repel
from branchnets.families.coded.search import syndromes as classes_of_words
from branchnets.families.coded.search.clock import Clock

#: The most nodes of a graph whose cliques are looked for.
NODES = 2500
#: The most words in all blocks of such a graph, and comparisons to make it.
WORDS = 400_000
COMPARISONS = 400_000_000
#: The most words that a larger group's orbits are looked for among.
SAMPLE = 100_000
#: The largest space that is searched exhaustively.
EXHAUSTIVE = 1000


@dataclasses.dataclass(frozen=True)
class Target:
    """What is wanted of a pool: `classes` or more words, `distance` or more apart."""

    classes: int
    branches: int
    active: int
    distance: int

    @property
    def limit(self) -> int:
        """Ones that two words may share."""
        return self.active - self.distance // 2


@dataclasses.dataclass(frozen=True)
class Pool:
    """Words found by a strategy.

    Attributes:
      source: where they come from.
      blocks: packed words [size, W] each; any two words of any blocks keep the distance.
      balanced: each block uses every branch equally often.
    """

    source: str
    blocks: list[np.ndarray]
    balanced: bool = False

    @property
    def size(self) -> int:
        """Words in all."""
        return sum(map(len, self.blocks))

    @property
    def words(self) -> np.ndarray:
        """All words, [M, W]."""
        return np.concatenate(self.blocks)


Strategy = Callable[[Target, np.random.Generator, Clock], Iterator[Pool]]


def exhaustive(target: Target, nodes: int) -> tuple[np.ndarray | None, bool]:
    """Branch and bound over all words: (words or None, whether every choice was looked at).

    Only for spaces of at most `EXHAUSTIVE` words; larger ones are not looked at.
    """
    if math.comb(target.branches, target.active) > EXHAUSTIVE:
        return None, False
    words = packed.all_words(target.branches, target.active)
    adjacent = packed.overlaps(words, words) <= target.limit
    # All words are alike: permutations of the branches send any to the first.
    found, complete = cliques.exact_clique(adjacent, target.classes, first=0, nodes=nodes)
    return (None if found is None else words[found]), complete


def linear_codes(target: Target, rng: np.random.Generator, clock: Clock) -> Iterator[Pool]:
    """Words of cyclic codes and codes made from them."""
    clock.report("linear codes")
    for source, words in linear.constant_weight_pools(
        target.branches, target.active, target.distance, rng, clock
    ):
        yield Pool(source, [words])


def syndrome_classes(target: Target, rng: np.random.Generator, clock: Clock) -> Iterator[Pool]:
    """Words with equal syndromes (Graham and Sloane; BCH)."""
    for name, words in classes_of_words.pools(
        target.branches, target.active, target.distance, target.classes, rng, clock
    ):
        yield Pool(f"class of words of equal {name}", [words])


def lexicodes(target: Target, rng: np.random.Generator, clock: Clock) -> Iterator[Pool]:
    """Algorithm 1 in the sorted order, then in other lexicographic orders."""
    for attempt in range(4):
        clock.report("greedy codes (Algorithm 1)")
        words = greedy.word_list(target.branches, target.active, rng, shuffle=attempt > 0)
        # More words than are needed leave a choice for even columns.
        found = greedy.lexicode(words, target.limit, 4 * target.classes, clock=clock)
        yield Pool("greedy code (Algorithm 1)", [found])
        if clock.expired:
            return


def word_cliques(target: Target, rng: np.random.Generator, clock: Clock) -> Iterator[Pool]:
    """Cliques among single words: all of them where they are few."""
    total = math.comb(target.branches, target.active)
    if total > NODES and target.classes > NODES // 4:
        return
    clock.report("cliques of single words")
    if total <= NODES:
        words = packed.all_words(target.branches, target.active)
    else:
        words = packed.random_words(target.branches, target.active, NODES, rng)
        words = packed.unique(words)
    adjacent = packed.overlaps(words, words) <= target.limit
    for enough in (target.classes, 4 * target.classes):  # then more, for even columns
        chosen = cliques.heavy_clique(
            adjacent, np.ones(len(words)), enough, rng, steps=20_000, clock=clock
        )
        yield Pool("clique of single words", [words[chosen]])


#: The most classes that words are driven apart for, one at a time.
REPELLED = 300


def repelled_words(target: Target, rng: np.random.Generator, clock: Clock) -> Iterator[Pool]:
    """Random words driven apart by local search, for few classes."""
    if target.classes > REPELLED or math.comb(target.branches, target.active) < 2 * target.classes:
        return
    clock.report("driving words apart")
    for _ in range(4):
        start = packed.random_words(target.branches, target.active, target.classes, rng)
        words = repel.repel(start, target.branches, target.limit, rng, steps=5000, clock=clock)
        if words is not None:
            yield Pool("words driven apart", [words])
        if clock.expired:
            return


class OrbitSearch:
    """Unions of orbits of one group's translations, or of its other groups' larger orbits.

    Args:
      target: what is wanted.
      group: a group without further maps; words whose translates keep the distance are kept
        for all groups with the same translations.
      rng: for samples.
      clock: ends the preparation early.
    """

    def __init__(self, target: Target, group: groups.Group, rng: np.random.Generator, clock: Clock):
        self._target, self._group = target, group
        words = orbits.candidates(group, target.active, rng)
        listed = orbits.listed(group, target.active)
        self._words = orbits.distance_keeping(
            words, group.translations, target.limit, representatives=listed, clock=clock
        )

    def pool(self, group: groups.Group, rng: np.random.Generator, clock: Clock) -> Pool:
        """A union of orbits of `group`, topped up with orbits of the translations alone."""
        words = self._words
        if len(group.maps) > 1:
            if len(words) > SAMPLE:
                words = words[np.sort(rng.permutation(len(words))[:SAMPLE])]
            others = orbits.up_to_inverses(orbits.elements(group)[len(group.translations) :])
            words = orbits.distance_keeping(words, others, self._target.limit, clock=clock)
        blocks = self._clique(words, group, rng, clock, [])
        if len(group.maps) > 1 and sum(map(len, blocks)) != self._target.classes:
            blocks = [part for block in blocks for part in self._split(block)]
            blocks += self._clique(self._words, self._group, rng, clock, blocks)
        return Pool(f"orbits of {group.name}", blocks, balanced=self._group.transitive)

    def _split(self, block: np.ndarray) -> list[np.ndarray]:
        """The orbits of the translations in an orbit of a larger group."""
        return orbits.orbits(block, self._group.translations)

    def _clique(
        self,
        words: np.ndarray,
        group: groups.Group,
        rng: np.random.Generator,
        clock: Clock,
        present: list[np.ndarray],
    ) -> list[np.ndarray]:
        """Mutually compatible orbits of a group, compatible with the blocks present."""
        if present:
            words = words[packed.compatible(words, np.concatenate(present), self._target.limit)]
        room = min(NODES * 8, WORDS * 8 // group.order)
        if len(words) > room:
            words = words[np.sort(rng.permutation(len(words))[:room])]
        found = orbits.orbits(words, orbits.elements(group))
        # Short orbits fill gaps, and are few: keep them and a sample of the long ones.
        nodes = min(NODES, int(math.isqrt(COMPARISONS // group.order)))
        if len(found) > nodes:
            order = rng.permutation(len(found))
            order = order[
                np.argsort([2 * len(found[i]) > group.order for i in order], kind="stable")
            ]
            found = [found[i] for i in np.sort(order[:nodes])]
        if not found:
            return []
        adjacent = orbits.compatibility(found, self._target.limit)
        sizes = np.array([len(block) for block in found])
        missing = self._target.classes - sum(map(len, present))
        chosen = cliques.heavy_clique(adjacent, sizes, missing, rng, clock=clock)
        return [found[i] for i in chosen]


#: Further maps tried with one group's translations, and the largest order of the whole group.
MAPS = 16
ORDER = 2000


def transitive_orbits(target: Target, rng: np.random.Generator, clock: Clock) -> Iterator[Pool]:
    """Unions of orbits of regular groups, with further automorphisms of theirs at random.

    Where N is 2^m the translations of GF(2)^m and random invertible linear maps are among them.
    """
    for moduli in groups.abelian_types(target.branches):
        maps = [groups.random_automorphism(moduli, rng) for _ in range(MAPS)]
        yield from _with_maps(target, groups.abelian(moduli), maps, rng, clock)
    if target.branches % 2 == 0 and target.branches >= 6:
        yield from _with_maps(target, groups.dihedral(target.branches), [], rng, clock)


def other_orbits(target: Target, rng: np.random.Generator, clock: Clock) -> Iterator[Pool]:
    """Unions of orbits of cyclic groups with several orbits of branches, or fixed branches."""
    n = target.branches
    orders = {n - 1, n - 2} | {order for m in (n, n - 1) for order in range(2, m) if m % order == 0}
    for order in sorted(orders, reverse=True):
        if order < 2:
            continue
        group = groups.semiregular(n, order)
        units = groups.multipliers(order)
        chosen = rng.permutation(np.array(units, np.int64))[: MAPS // 2]
        maps = [groups.multiplied(group, order, int(u)).maps[1] for u in chosen]
        yield from _with_maps(target, group, maps, rng, clock)


def _with_maps(
    target: Target,
    group: groups.Group,
    maps: list[np.ndarray],
    rng: np.random.Generator,
    clock: Clock,
) -> Iterator[Pool]:
    if clock.expired:
        return
    clock.report(f"orbits of {group.name}")
    search = OrbitSearch(target, group, rng, clock)
    seen: set[bytes] = set()
    for number, image in enumerate(maps):
        if number == 4 and not clock.expired:
            yield search.pool(group, rng, clock)
        larger = group.with_map("", image)
        key = np.sort(orbits.elements(larger), axis=0).tobytes()
        if not 1 < len(larger.maps) <= ORDER // len(group.translations) or key in seen:
            continue
        seen.add(key)
        if clock.expired:
            return
        name = f"{group.name} and a map of order {len(larger.maps)}"
        clock.report(f"orbits of {name}")
        yield search.pool(dataclasses.replace(larger, name=name), rng, clock)
    if len(maps) <= 4 and not clock.expired:
        yield search.pool(group, rng, clock)

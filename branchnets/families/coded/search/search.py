"""The search: every strategy at every distance, from the bound down, until time is up."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from branchnets.families.coded.search import balance, bounds, greedy, packed, strategies
from branchnets.families.coded.search.clock import Clock
from branchnets.families.coded.search.problem import Request, Scheme
from branchnets.families.coded.search.strategies import Pool, Strategy, Target

#: Name, strategy, and the share of a distance's time that it may take; in the order tried.
STRATEGIES: tuple[tuple[str, Strategy, float], ...] = (
    ("linear", strategies.linear_codes, 0.2),
    ("repelled", strategies.repelled_words, 0.2),
    ("transitive", strategies.transitive_orbits, 0.7),
    ("lexicodes", strategies.lexicodes, 0.2),
    ("syndromes", strategies.syndrome_classes, 0.2),
    ("cliques", strategies.word_cliques, 0.2),
    ("other", strategies.other_orbits, 0.3),
)
EVERY = tuple(name for name, _, _ in STRATEGIES)
#: Those that find a first scheme quickly.
QUICK = ("linear", "repelled", "lexicodes")
#: The share of K that a pool needs for words to be added to it greedily.
TOP_UP = 0.6
#: Rounds through all strategies, with new random choices, after which ideas have run out.
ROUNDS = 20
#: Nodes of the exhaustive search of the first round.
NODES = 4000


@dataclasses.dataclass(frozen=True)
class Result:
    """What the search found.

    Attributes:
      scheme: the best: largest H_min, then least spread.
      largest: the largest H_min that the bounds, or an exhaustive search, leave possible.
      finished: nothing better is possible, or wanted; otherwise time or ideas ran out.
      exhausted: distances that an exhaustive search ruled out.
    """

    scheme: Scheme
    largest: int
    finished: bool
    exhausted: tuple[int, ...] = ()

    @property
    def optimal(self) -> bool:
        """Whether no scheme of this K, N and N_act has a larger H_min."""
        found = self.scheme.min_distance
        return found is None or found >= self.largest


class _Best:
    """The best scheme so far, and who is told about it."""

    def __init__(self, classes: int, goal: int, announce: Callable[[Scheme], None]):
        self.scheme: Scheme | None = None
        self.key = (-1, 0)
        self._classes, self._goal, self._announce = classes, goal, announce

    def lower(self, goal: int) -> None:
        """No more than this can be had, it turned out."""
        self._goal = goal

    def offer(self, scheme: Scheme) -> None:
        distance = scheme.min_distance
        # More than is wanted counts no more than what is wanted.
        key = (self._goal if distance is None else min(distance, self._goal), -scheme.spread)
        if key > self.key:
            self.scheme, self.key = scheme, key
            self._announce(scheme)


def find(
    request: Request,
    *,
    seed: int = 0,
    budget: float = 60.0,
    report: Callable[[str], None] = lambda text: None,
    announce: Callable[[Scheme], None] = lambda scheme: None,
) -> Result:
    """The scheme with the largest H_min found, and among those the most even columns.

    The same seed gives the same scheme where the budget does not end the search.  Ctrl-C ends it
    with the best so far, as the budget does.

    Args:
      request: K, N, N_act and perhaps the H_min wanted, which then is not exceeded on purpose.
      seed: of all random choices.
      budget: seconds.
      report: called with a few words on what is tried.
      announce: called with every scheme that is the best so far.

    Returns:
      the scheme and what is known about better ones.
    """
    clock = Clock(report=report)
    clock = dataclasses.replace(clock, deadline=clock.now() + budget)
    half = request.halved
    k, n, a = half.classes, half.branches, half.active
    flip = half.active != request.active
    report("upper bounds")
    largest = bounds.largest_distance(k, n, a)
    wanted = request.min_distance
    goal = largest if wanted is None else min(largest, wanted + wanted % 2)
    least = balance.least_spread(k, n, a)
    best = _Best(k, goal, lambda s: announce(s.complement() if flip else s))
    exhausted: list[int] = []
    report("different words")
    rng = np.random.default_rng(_seed(seed, "start"))
    best.offer(Scheme(_distinct_words(k, n, a, rng), n, "distinct words with even columns"))

    def done() -> bool:
        return best.key >= (goal, -least)

    def attempt(d: int, round_: int, seconds: float, names: Sequence[str]) -> None:
        target = Target(k, n, a, d)
        level = clock.within(seconds)
        for name, strategy, share in STRATEGIES:
            if level.expired or best.key >= (d, -least):
                return
            share = max(share, 1 / len(names))
            if name in names:
                own = np.random.default_rng(_seed(seed, name, d, round_))
                part = level.within(share * seconds)
                for scheme in _schemes(strategy(target, own, part), target, own, part):
                    best.offer(scheme)
                    if best.key >= (d, -least):
                        return

    def impossible(d: int, round_: int) -> bool:
        target = Target(k, n, a, d)
        found, complete = strategies.exhaustive(target, NODES << round_)
        if found is not None:
            best.offer(_improved(found, "exhaustive search", target, rng, clock))
        return found is None and complete

    try:
        for round_ in range(ROUNDS):
            first = True
            for d in range(goal, 0, -2):
                if clock.expired or (d, -least) <= best.key:
                    break
                if best.key[0] < d and impossible(d, round_):
                    exhausted.append(d)
                    largest = goal = d - 2
                    best.lower(goal)
                    continue
                attempt(d, round_, (0.45 if first else 0.2) * clock.left, EVERY)
                if first and round_ == 0:  # the bound is out of reach: something to start from
                    low, high = max(best.key[0], 2), d
                    while high - low > 2:  # between a distance that is had and one that is not
                        middle = low + (high - low) // 4 * 2
                        attempt(middle, -1, 0.06 * clock.left, QUICK)
                        low, high = (middle, high) if best.key[0] >= middle else (low, middle)
                first = False
            if done() or clock.expired:
                break
    except KeyboardInterrupt:
        report("stopped")
    scheme = best.scheme
    assert scheme is not None
    scheme = scheme.complement() if flip else scheme
    return Result(scheme, largest, done(), tuple(exhausted))


def _schemes(
    pools: Iterator[Pool], target: Target, rng: np.random.Generator, clock: Clock
) -> Iterator[Scheme]:
    """K balanced words of every pool large enough; the largest of the others is topped up."""
    largest: Pool | None = None
    for pool in pools:
        if pool.size >= target.classes:
            yield _balanced(pool, target, rng, clock)
        elif largest is None or pool.size > largest.size:
            largest = pool
    if largest is not None and largest.size >= TOP_UP * target.classes and not clock.expired:
        clock.report(f"topping up {largest.source}")
        words = greedy.word_list(target.branches, target.active, rng, shuffle=False)
        words = greedy.lexicode(
            words, target.limit, 2 * target.classes, start=largest.words, clock=clock
        )
        if len(words) >= target.classes:
            topped = Pool(f"{largest.source}, topped up greedily", [words])
            yield _balanced(topped, target, rng, clock)


def _balanced(pool: Pool, target: Target, rng: np.random.Generator, clock: Clock) -> Scheme:
    """K words of a pool with columns as even as can be found."""
    if pool.balanced:
        chosen = balance.choose_blocks([len(block) for block in pool.blocks], target.classes)
        if chosen is not None:
            words = np.concatenate([pool.blocks[i] for i in chosen])
            return Scheme(words, target.branches, pool.source)
    words = pool.words
    if len(words) > (most := 4 * target.classes + 1000):
        words = words[np.sort(rng.permutation(len(words))[:most])]
    clock.report("evening the columns")
    # Not cut short by a strategy's share: without it the strategy was for nothing.
    chosen_words = balance.choose_words(words, target.classes, target.branches, rng, steps=4000)
    return _improved(words[chosen_words], pool.source, target, rng, clock)


def _improved(
    words: np.ndarray, source: str, target: Target, rng: np.random.Generator, clock: Clock
) -> Scheme:
    """The words with ones moved from full to empty branches."""
    words = balance.mend(words, target.branches, target.limit, rng, steps=10_000, clock=clock)
    return Scheme(words, target.branches, source)


def _distinct_words(
    classes: int, branches: int, active: int, rng: np.random.Generator
) -> np.ndarray:
    """K different words with even columns, at any distance."""
    if math.comb(branches, active) <= max(4 * classes, 20_000):
        pool = packed.all_words(branches, active)
    else:
        pool = packed.unique(packed.random_words(branches, active, 2 * classes + 100, rng))
        while len(pool) < classes:
            more = packed.random_words(branches, active, classes, rng)
            pool = packed.unique(np.concatenate([pool, more]))
    chosen = balance.choose_words(pool, classes, branches, rng, steps=2000)
    return balance.mend(pool[chosen], branches, active - 1, rng, steps=5000)


def _seed(seed: int, *parts: object) -> list[int]:
    """Numbers that start a generator of its own for every use."""
    return [seed, zlib.crc32(repr(parts).encode())]

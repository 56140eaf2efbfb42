"""Choosing codewords so that every branch works for equally many classes (rule C of 3.2.1)."""

from __future__ import annotations

import numpy as np

from branchnets.families.coded.search import packed
from branchnets.families.coded.search.clock import Clock


def least_spread(classes: int, branches: int, active: int) -> int:
    """The least S_max - S_min there can be: 0 where N divides K N_act, else 1."""
    return int(classes * active % branches > 0)


def spread(words: np.ndarray, branches: int) -> int:
    """S_max - S_min, the score of Algorithm 1, of packed words [M, W]."""
    sums = packed.unpack(words, branches).sum(0, dtype=np.int64)
    return int(sums.max() - sums.min())


def choose_blocks(sizes: list[int], total: int) -> list[int] | None:
    """Indices of blocks whose sizes add up to `total`, or None.

    For blocks that use every branch equally often this balances exactly.
    """
    reached: dict[int, tuple[int, int]] = {0: (-1, 0)}  # sum -> (last block, sum before it)
    for index in np.argsort(sizes, kind="stable")[::-1]:
        for before in sorted(reached, reverse=True):
            after = before + sizes[index]
            if after <= total and after not in reached:
                reached[after] = (int(index), before)
        if total in reached:
            break
    if total not in reached:
        return None
    chosen, at = [], total
    while at:
        index, at = reached[at]
        chosen.append(index)
    return sorted(chosen)


def choose_words(
    pool: np.ndarray,
    classes: int,
    branches: int,
    rng: np.random.Generator,
    *,
    steps: int = 20_000,
    clock: Clock | None = None,
) -> np.ndarray:
    """K words of a pool with the least spread found, by exchanging chosen for unchosen words.

    Line 20 of Algorithm 1 looks at every subset; here an exchange is taken when it brings
    sum_c (S_c - mean)^2 down, and now and then one that does not.

    Args:
      pool: [M, W] packed words, M >= K.
      classes: K.
      branches: N.
      rng: for the start and the order of the exchanges.
      steps: exchanges tried, each the best of a sample.
      clock: ends the search early.

    Returns:
      Indices into the pool, ascending, [K].
    """
    clock = clock or Clock()
    table = packed.unpack(pool, branches).astype(np.float32)
    active = int(table[0].sum())
    goal = least_spread(classes, branches, active)
    mean = classes * active / branches
    inside = np.zeros(len(pool), bool)
    inside[rng.permutation(len(pool))[:classes]] = True
    best, best_spread, worse = inside.copy(), np.inf, 0
    excess = table[inside].sum(0) - mean
    for step in range(steps):
        found = float(excess.max() - excess.min())
        if found < best_spread - 0.5:
            best, best_spread, worse = inside.copy(), found, 0
        if best_spread < goal + 0.5 or len(pool) == classes or (step % 64 == 0 and clock.expired):
            break
        ins, outs = np.flatnonzero(inside), np.flatnonzero(~inside)
        ins = rng.permutation(ins)[:128]
        outs = rng.permutation(outs)[:128]
        # |e - a + b|^2 - |e|^2 = 2 e.(b - a) + |a - b|^2, and |a - b|^2 is the distance.
        # (No matrix product: its threads would take every core for these small tables.)
        tilt_in, tilt_out = (np.einsum("mn,n->m", table[rows], excess) for rows in (ins, outs))
        distance = 2 * (active - packed.overlaps(pool[ins], pool[outs]).astype(np.float32))
        change = 2 * (tilt_out[None, :] - tilt_in[:, None]) + distance
        worse += 1
        if worse % 50 == 0:  # out of a local minimum
            change = rng.random(change.shape, np.float32)
        a, b = np.unravel_index(int(change.argmin()), change.shape)
        if change[a, b] >= 0 and worse % 50:
            continue
        a, b = ins[a], outs[b]
        inside[a], inside[b] = False, True
        excess += table[b] - table[a]
    return np.flatnonzero(best)


def mend(
    words: np.ndarray,
    branches: int,
    limit: int,
    rng: np.random.Generator,
    *,
    steps: int = 20_000,
    clock: Clock | None = None,
) -> np.ndarray:
    """Evens the columns by moving ones of words from full branches to empty ones.

    Args:
      words: [K, W]; any two share at most `limit` ones, and still do afterwards.
      branches: N.
      limit: N_act - H_min / 2.
      rng: which word and branches are tried.
      steps: moves tried.
      clock: ends the search early.

    Returns:
      [K, W], of the same or a smaller spread.
    """
    clock = clock or Clock()
    table = packed.unpack(words, branches).astype(np.int16)
    goal = least_spread(len(words), branches, int(table[0].sum()))
    shared = packed.overlaps(words, words).astype(np.int16)
    np.fill_diagonal(shared, -1)
    sums = table.sum(0, dtype=np.int64)
    best = table.copy()
    best_key = _key(sums)
    for step in range(steps):
        if sums.max() - sums.min() <= goal or (step % 64 == 0 and clock.expired):
            break
        # A move between branches of equal or adjoining sums costs nothing; it lets others follow.
        full, empty = rng.integers(branches, size=2)
        if sums[full] < sums[empty]:
            full, empty = empty, full
        if full == empty or sums[full] == sums[empty]:
            continue
        rows = np.flatnonzero((table[:, full] == 1) & (table[:, empty] == 0))
        for k in rng.permutation(rows)[:8]:
            row = shared[k] - table[:, full] + table[:, empty]
            row[k] = -1
            if row.max() > limit:
                continue
            table[k, full], table[k, empty] = 0, 1
            shared[k, :], shared[:, k] = row, row
            sums[full] -= 1
            sums[empty] += 1
            if (key := _key(sums)) < best_key:
                best, best_key = table.copy(), key
            break
    return packed.pack(best.astype(np.uint8))


def _key(sums: np.ndarray) -> tuple[int, int]:
    """Spread first, then the sum of squares."""
    return int(sums.max() - sums.min()), int((sums * sums).sum())

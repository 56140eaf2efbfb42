"""Local search that drives words apart: for few, long words, where structure is not needed."""

from __future__ import annotations

import numpy as np

from branchnets.families.coded.search import packed
from branchnets.families.coded.search.clock import Clock


def repel(
    words: np.ndarray,
    branches: int,
    limit: int,
    rng: np.random.Generator,
    *,
    steps: int = 20_000,
    clock: Clock | None = None,
) -> np.ndarray | None:
    """Moves ones of words until any two share at most `limit`, or None.

    Each step takes a word that shares too much with another and makes the move of one of its ones
    that brings sum_j max(0, shared_j - limit)^2 down most; the places moved are held for a while.

    Args:
      words: [K, W], all of one weight, to start from.
      branches: N.
      limit: N_act - H_min / 2.
      rng: which word is moved, and which of equal moves is made.
      steps: moves in all.
      clock: ends the search early.
    """
    clock = clock or Clock()
    table = packed.unpack(words, branches).astype(np.int64)
    shared = packed.overlaps(words, words).astype(np.int64)
    np.fill_diagonal(shared, -branches)
    held = np.zeros(table.shape, np.int64)  # step until which a place of a word stays

    def excess(x: np.ndarray) -> np.ndarray:
        return np.maximum(0, x - limit) ** 2

    for step in range(steps):
        bad = np.flatnonzero((shared > limit).any(1))
        if not len(bad):
            return packed.pack(table.astype(np.uint8))
        if step % 64 == 63 and clock.expired:
            return None
        k = int(rng.choice(bad))
        near = np.flatnonzero(shared[k] >= limit)
        others, s = table[near], shared[k, near]
        more, less = excess(s + 1) - excess(s), excess(s - 1) - excess(s)
        # A move from p to q adds a one shared with word j where it has q and not p, and takes one
        # where it has p and not q.
        gain, loss = more @ others, less @ others
        ones = np.flatnonzero((table[k] == 1) & (held[k] <= step))
        zeros = np.flatnonzero((table[k] == 0) & (held[k] <= step))
        if not len(ones) or not len(zeros):
            continue
        both = (others[:, ones] * (more + less)[:, None]).T @ others[:, zeros]
        change = gain[zeros][None, :] + loss[ones][:, None] - both
        p, q = np.unravel_index(int((change + rng.random(change.shape) / 2).argmin()), change.shape)
        p, q = ones[p], zeros[q]
        row = shared[k] - table[:, p] + table[:, q]
        row[k] = -branches
        shared[k, :] = shared[:, k] = row
        table[k, p], table[k, q] = 0, 1
        held[k, p] = held[k, q] = step + 20 + int(rng.integers(20))
    return None

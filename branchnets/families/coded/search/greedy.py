"""Greedy codes: the first loop of Algorithm 1 (appendix A)."""

from __future__ import annotations

import math

import numpy as np

from branchnets.families.coded.search import packed
from branchnets.families.coded.search.clock import Clock

#: All words are listed when there are at most so many, else a sample.
ENUMERATE = 2_000_000
SAMPLE = 300_000


def lexicode(
    words: np.ndarray,
    limit: int,
    enough: int,
    *,
    start: np.ndarray | None = None,
    clock: Clock | None = None,
) -> np.ndarray:
    """Takes every word that keeps its distance from those taken before it (lines 13 to 16).

    A word taken strikes all words too close to it from the list, so that no pair is compared
    twice.

    Args:
      words: the list L, [M, W], in its order.
      limit: ones that two words may share, N_act - H_min / 2.
      enough: the loop ends after so many words, `start` included.
      start: words taken before, [S, W].
      clock: ends the loop early.

    Returns:
      G: the words taken, `start` first.
    """
    clock = clock or Clock()
    taken = [] if start is None else list(start)
    if start is not None and len(start):
        words = words[packed.compatible(words, start, limit)]
    while len(words) and len(taken) < enough and not clock.expired:
        # The head of the list is settled by itself; the long tail is compared with many at once.
        head, words = words[:4096], words[4096:]
        new: list[np.ndarray] = []
        while len(head) and len(taken) + len(new) < enough:
            new.append(head[0])
            shared = packed.weights(head & head[0])
            head = head[shared <= limit]
            head = head[1:] if len(head) and (head[0] == new[-1]).all() else head
        taken += new
        if len(words) and len(taken) < enough:
            words = words[packed.compatible(words, np.stack(new), limit)] if new else words
    return np.stack(taken) if taken else words[:0]


def word_list(branches: int, active: int, rng: np.random.Generator, *, shuffle: bool) -> np.ndarray:
    """The sorted list L of Algorithm 1, or a sorted sample where it is too long.

    Args:
      branches: N.
      active: N_act.
      rng: for the sample and the shuffle.
      shuffle: sort by exclusive or with a random word, which is another lexicographic order.
    """
    if math.comb(branches, active) <= ENUMERATE:
        words = packed.all_words(branches, active)
    else:
        words = packed.unique(packed.random_words(branches, active, SAMPLE, rng))
    if not shuffle:
        return words
    flip = packed.pack(rng.integers(0, 2, (1, branches)).astype(np.uint8))
    order = np.lexsort((words ^ flip).T)
    return words[order]

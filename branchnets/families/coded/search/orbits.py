"""Words whose orbits under a group of permutations of the branches keep a distance."""

from __future__ import annotations

import math

import numpy as np

from branchnets.families.coded.search import packed
from branchnets.families.coded.search.clock import Clock
from branchnets.families.coded.search.groups import Action, Group

#: All words are looked at when there are at most so many, else a sample.
ENUMERATE = 3_000_000
SAMPLE = 60_000


def candidates(group: Group, active: int, rng: np.random.Generator) -> np.ndarray:
    """Words that represent the orbits of a group's translations, [M, W].

    All words where those are few (all with branch 0, of a transitive group); else random ones and
    ones that some element of the group leaves as they are: their orbits are short, and more of
    those keep a distance.
    """
    n = group.branches
    if _through_first(group, active):
        rest = packed.all_words(n - 1, active - 1)
        if packed.width(n) == 1:
            return (rest << np.uint64(1)) | np.uint64(1)
        table = np.concatenate(
            [np.ones((len(rest), 1), np.uint8), packed.unpack(rest, n - 1)], axis=1
        )
        return packed.pack(table)
    if math.comb(n, active) <= ENUMERATE:
        return packed.all_words(n, active)
    parts = [packed.random_words(n, active, SAMPLE, rng)]
    for _ in range(64):
        t = group.translations[rng.integers(len(group.translations))]
        m = group.maps[rng.integers(len(group.maps))]
        parts.append(invariant_words(m[t], active, 1000, rng))
    return packed.unique(np.concatenate(parts))


def _through_first(group: Group, active: int) -> bool:
    """Whether the candidates are all words with branch 0."""
    return group.transitive and math.comb(group.branches - 1, active - 1) <= ENUMERATE


def listed(group: Group, active: int) -> bool:
    """Whether the candidates hold every image of each that could be one, not just a sample."""
    return _through_first(group, active) or math.comb(group.branches, active) <= ENUMERATE


def invariant_words(
    permutation: np.ndarray, active: int, count: int, rng: np.random.Generator
) -> np.ndarray:
    """At most `count` random words of N_act ones that a permutation [N] maps to themselves."""
    n = len(permutation)
    label = np.full(n, -1)
    cycles = 0
    for start in range(n):
        if label[start] < 0:
            i = start
            while label[i] < 0:
                label[i] = cycles
                i = permutation[i]
            cycles += 1
    members = (label[None, :] == np.arange(cycles)[:, None]).astype(np.uint8)
    sizes = members.sum(1, dtype=np.int64)
    order = rng.random((count, cycles)).argsort(1)
    left = np.full(count, active)
    taken = np.zeros((count, cycles), np.uint8)
    for column in order.T:  # take every cycle that still fits
        fits = sizes[column] <= left
        taken[np.arange(count), column] = fits
        left = left - np.where(fits, sizes[column], 0)
    return packed.unique(packed.pack(taken[left == 0] @ members))


def distance_keeping(
    words: np.ndarray,
    permutations: np.ndarray,
    limit: int,
    *,
    representatives: bool = False,
    clock: Clock | None = None,
) -> np.ndarray:
    """The words whose images under the permutations are themselves or share at most `limit` ones.

    Args:
      words: [M, W], all of one weight.
      permutations: [G, N].
      limit: ones that two words may share, N_act - H_min / 2.
      representatives: leave out words that have an image among the words with a smaller hash.
        Only for permutations that form a group.
      clock: the search ends early with no words when it expires.
    """
    if not len(words):
        return words
    active = int(packed.weights(words[:1])[0])
    first = np.zeros(words.shape[1], np.uint64)
    first[0] = 1
    has_first = bool((words & first).any(1).all())
    for permutation in permutations:
        if clock is not None and clock.expired:
            return words[:0]
        image = Action(permutation[None]).image(0, words)
        shared = packed.weights(words & image)
        keep = (shared <= limit) | (shared == active)
        if representatives:
            # Where all words hold one branch, an image without it is not among them.
            outside = ~(image & first).any(1) & has_first
            keep &= outside | (packed.hashes(words) <= packed.hashes(image))
        words = words[keep]
    return words


def orbits(words: np.ndarray, permutations: np.ndarray) -> list[np.ndarray]:
    """The distinct orbits of the words under a group, each [size, W] without repeats.

    Args:
      words: [M, W].
      permutations: [G, N], every element of the group.
    """
    if not len(words):
        return []
    images = Action(permutations).images(words)
    keys = packed.hashes(images)
    _, first = np.unique(keys.min(1), return_index=True)
    return [packed.unique(images[i]) for i in np.sort(first)]


def elements(group: Group) -> np.ndarray:
    """All permutations of the group, [H T, N]: every map after every translation."""
    return group.maps[:, group.translations].reshape(-1, group.branches)


def up_to_inverses(permutations: np.ndarray) -> np.ndarray:
    """One of every permutation and its inverse: a word shares as many ones with both images."""
    seen: set[bytes] = set()
    kept = []
    for index, (row, inverse) in enumerate(zip(permutations, permutations.argsort(1), strict=True)):
        if inverse.astype(row.dtype).tobytes() not in seen:
            seen.add(row.tobytes())
            kept.append(index)
    return permutations[kept]


def compatibility(blocks: list[np.ndarray], limit: int) -> np.ndarray:
    """Whether two blocks may be used together: [n, n] bool.

    Blocks must be orbits of one group: then one word of each stands for it.
    """
    n = len(blocks)
    flat = np.concatenate(blocks)
    starts = np.cumsum([0, *map(len, blocks)])[:-1]
    first = flat[starts]
    result = np.zeros((n, n), bool)
    step = max(1, (1 << 22) // len(flat))
    for row in range(0, n, step):
        shared = packed.overlaps(first[row : row + step], flat)
        result[row : row + step] = np.maximum.reduceat(shared, starts, axis=1) <= limit
    return result

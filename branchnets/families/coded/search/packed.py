"""Words of 0 and 1 packed into 64-bit integers, so that a distance is a population count.

A packed word is a row of W = ceil(N / 64) uint64; branch i is bit i % 64 of column i // 64.
"""

from __future__ import annotations

import math

import numpy as np

#: Rows times columns of the largest table of overlaps made at once.
_TABLE = 1 << 22


def pack(words: np.ndarray) -> np.ndarray:
    """[M, N] of 0 and 1 -> packed [M, W] uint64."""
    count, branches = words.shape
    padded = np.zeros((count, 64 * width(branches)), np.uint8)
    padded[:, :branches] = words
    packed = np.packbits(padded, axis=1, bitorder="little")
    return packed.view("<u8").astype(np.uint64)


def unpack(packed: np.ndarray, branches: int) -> np.ndarray:
    """Packed [M, W] -> [M, N] uint8 of 0 and 1."""
    raw = np.ascontiguousarray(packed, "<u8").view(np.uint8)
    return np.unpackbits(raw, axis=1, bitorder="little")[:, :branches]


def width(branches: int) -> int:
    """W, the 64-bit integers of a word of so many branches."""
    return -(-branches // 64)


def weights(packed: np.ndarray) -> np.ndarray:
    """[M, W] -> the ones of every word, [M] int64."""
    return np.bitwise_count(packed).sum(-1, dtype=np.int64)


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Ones shared by every word of `a` [Ma, W] with every word of `b` [Mb, W]: [Ma, Mb] uint8."""
    shared = np.bitwise_count(a[:, None, 0] & b[None, :, 0])
    for column in range(1, a.shape[1]):
        shared += np.bitwise_count(a[:, None, column] & b[None, :, column])
    return shared


def max_overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The most ones that each word of `a` [Ma, W] shares with any of `b` [Mb, W]: [Ma] uint8."""
    result = np.zeros(len(a), np.uint8)
    if not len(b):
        return result
    step = max(1, _TABLE // len(b))
    for start in range(0, len(a), step):
        result[start : start + step] = overlaps(a[start : start + step], b).max(1)
    return result


def compatible(a: np.ndarray, b: np.ndarray, limit: int) -> np.ndarray:
    """Whether each word of `a` shares at most `limit` ones with every word of `b`: [Ma] bool."""
    alive = np.arange(len(a))
    # Most words fall to the first few of b, and need no comparison with the rest.
    for start in range(0, len(b), 64):
        if not len(alive):
            break
        alive = alive[max_overlap(a[alive], b[start : start + 64]) <= limit]
    result = np.zeros(len(a), bool)
    result[alive] = True
    return result


def min_distance(packed: np.ndarray) -> int | None:
    """H_min of words of one weight, by comparing all pairs; None for fewer than two words."""
    if len(packed) < 2:
        return None
    weight, most = int(weights(packed[:1])[0]), 0
    step = max(1, _TABLE // len(packed))
    for start in range(0, len(packed), step):
        shared = overlaps(packed[start : start + step], packed)
        rows = np.arange(len(shared))
        shared[rows, start + rows] = 0
        most = max(most, int(shared.max()))
    return 2 * (weight - most)


def distance_histogram(packed: np.ndarray) -> dict[int, int]:
    """Distance -> number of unordered pairs of words of one weight at it."""
    weight = int(weights(packed[:1])[0])
    counts = np.zeros(weight + 1, np.int64)
    step = max(1, _TABLE // len(packed))
    for start in range(0, len(packed), step):
        shared = overlaps(packed[start : start + step], packed)
        counts += np.bincount(shared.ravel(), minlength=weight + 1)
    counts[weight] -= len(packed)  # each word with itself
    return {2 * (weight - s): int(counts[s]) // 2 for s in range(weight, -1, -1) if counts[s]}


def all_words(branches: int, active: int) -> np.ndarray:
    """All words of N_act ones in ascending order, [C(N, N_act), W]: the list L of Algorithm 1."""
    columns = width(branches)
    # level[w]: the words of w ones among the first n branches; a word with branch n follows all
    # without it, so the order stays ascending.
    level = {0: np.zeros((1, columns), np.uint64)}
    for n in range(branches):
        bit = np.zeros(columns, np.uint64)
        bit[n // 64] = np.uint64(1) << np.uint64(n % 64)
        following = {}
        for w in range(max(0, active - (branches - n - 1)), min(active, n + 1) + 1):
            parts = [level[w]] if w in level else []
            if w - 1 in level:
                parts.append(level[w - 1] | bit)
            following[w] = np.concatenate(parts)
        level = following
    assert len(level[active]) == math.comb(branches, active)
    return level[active]


def random_words(branches: int, active: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` words of N_act ones, uniform and independent: [count, W]."""
    parts = []
    for start in range(0, count, 1 << 16):
        rows = min(1 << 16, count - start)
        order = rng.random((rows, branches), np.float32).argpartition(active - 1, axis=1)
        words = np.zeros((rows, branches), np.uint8)
        np.put_along_axis(words, order[:, :active], 1, axis=1)
        parts.append(pack(words))
    return np.concatenate(parts)


def hashes(packed: np.ndarray) -> np.ndarray:
    """A 64-bit number for every word, [..., W] -> [...]: unequal for unequal words when W is 1."""
    multiplier = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying loses nothing
    result = packed[..., 0] * multiplier
    for column in range(1, packed.shape[-1]):
        result = ((result ^ (result >> np.uint64(29))) + packed[..., column]) * multiplier
    return result


def unique(packed: np.ndarray) -> np.ndarray:
    """Each word once, in ascending order of the last column first."""
    if not len(packed):
        return packed
    if packed.shape[1] == 1:
        return np.unique(packed.ravel())[:, None]
    return np.unique(packed[:, ::-1], axis=0)[:, ::-1]

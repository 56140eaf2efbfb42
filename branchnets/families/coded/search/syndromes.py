"""Words of one weight sorted into classes, the words of a class being a distance apart."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from branchnets.families.coded.search import packed
from branchnets.families.coded.search.clock import Clock
from branchnets.families.coded.search.field import power

#: All words are sorted when there are at most so many, else a sample of SAMPLE.
ENUMERATE = 3_000_000
SAMPLE = 1_000_000


def power_sums(branches: int, distance: int) -> tuple[int, np.ndarray]:
    """(q, [d/2 - 1, N]): columns x, x^2, ... modulo a prime q >= N.

    Two words whose ones have equal sums of the first d/2 - 1 powers have equal elementary
    symmetric functions of that many (Newton), so they differ in d/2 ones each at least
    (Graham and Sloane 1980, theorem 4).
    """
    q = next(q for q in range(max(branches, 2), 2 * branches + 2) if _is_prime(q))
    rows = [[pow(x, j, q) for x in range(branches)] for j in range(1, distance // 2)]
    return q, np.array(rows, np.int64).reshape(-1, branches)


def bch_columns(branches: int, distance: int) -> tuple[int, np.ndarray]:
    """(m, [d/2 - 1, N]): columns x, x^3, x^5 ... in GF(2^m), 2^m >= N, to be added modulo 2.

    Words of one weight with equal sums are in a coset of a BCH code extended to even weights, of
    distance d.
    """
    m = max(1, (branches - 1).bit_length())
    rows = [[power(x, 2 * j - 1, m) for x in range(branches)] for j in range(1, distance // 2)]
    return m, np.array(rows, np.int64).reshape(-1, branches)


def _byte_sums(words: np.ndarray, values: np.ndarray, xor: bool) -> np.ndarray:
    """Sum, or exclusive or, of the values [N] of every word's ones: [M, W] -> [M] int64."""
    raw = np.ascontiguousarray(words, "<u8").view(np.uint8)
    result = np.zeros(len(words), np.int64)
    for byte in range(-(-len(values) // 8)):
        table = np.zeros(256, np.int64)
        for i, value in enumerate(values[8 * byte : 8 * byte + 8]):
            old = table[: 1 << i]
            table[1 << i : 2 << i] = old ^ value if xor else old + value
        part = table[raw[:, byte]]
        result = result ^ part if xor else result + part
    return result


def bch_syndromes(words: np.ndarray, branches: int, distance: int) -> np.ndarray:
    """[M]: a number for the class of each word under `bch_columns`."""
    m, columns = bch_columns(branches, distance)
    result = np.zeros(len(words), np.int64)
    for row in columns:
        result = (result << m) | _byte_sums(words, row, True)
    return result


def power_syndromes(words: np.ndarray, branches: int, distance: int) -> np.ndarray:
    """[M]: a number for the class of each word under `power_sums`."""
    q, columns = power_sums(branches, distance)
    result = np.zeros(len(words), np.int64)
    for row in columns:
        result = result * q + _byte_sums(words, row, False) % q
    return result


def modular_syndromes(words: np.ndarray, branches: int) -> np.ndarray:
    """[M]: the sum of the places of the ones modulo N; a class has distance 4."""
    return _byte_sums(words, np.arange(branches), False) % branches


def pools(
    branches: int,
    active: int,
    distance: int,
    enough: int,
    rng: np.random.Generator,
    clock: Clock | None = None,
) -> Iterator[tuple[str, np.ndarray]]:
    """The largest class of every kind of syndrome.

    Nothing where even the largest class could not be expected to hold a third of `enough` words.

    Yields:
      (where they come from, packed words [M, W]).
    """
    clock = clock or Clock()
    if distance < 4:
        return
    total = math.comb(branches, active)
    listed = total if total <= ENUMERATE else SAMPLE
    m = max(1, (branches - 1).bit_length())
    kinds = [("power sums", branches ** (distance // 2 - 1), power_syndromes)]
    kinds.append(("BCH syndromes", 2 ** (m * (distance // 2 - 1)), bch_syndromes))
    # A class of BCH syndromes that is the code itself can be many times the mean.
    worth = [k for k in kinds if 8 * listed >= k[1] * enough and k[1] < 1 << 62]
    if not worth:
        return
    clock.report("sorting words by syndromes")
    if total <= ENUMERATE:
        words = packed.all_words(branches, active)
    else:
        words = packed.unique(packed.random_words(branches, active, SAMPLE, rng))
    if distance == 4:
        yield from _largest("sums of places", modular_syndromes(words, branches), words)
    for name, _, syndromes in worth:
        if clock.expired:
            return
        yield from _largest(name, syndromes(words, branches, distance), words)


def _largest(
    name: str, syndromes: np.ndarray, words: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    values, counts = np.unique(syndromes, return_counts=True)
    yield name, words[syndromes == values[counts.argmax()]]


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % p for p in range(2, math.isqrt(n) + 1))

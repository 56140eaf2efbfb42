"""Words of one weight in cyclic codes, in their extensions, shortenings and cosets.

Distances of a linear code are weights of its words; words of one weight differ in an even number
of places, so only the even-weight words of the code count.  Among these codes are the extended
BCH and the Reed-Muller codes when N is a power of two, and the quadratic-residue codes.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator

import numpy as np

from branchnets.families.coded.search import packed
from branchnets.families.coded.search.clock import Clock
from branchnets.families.coded.search.field import powers_of_primitive

#: Codes of at most so many dimensions are listed, 2^dimensions words; and where they are
#: shortened, which leaves few words.
MAX_DIMENSION = 22
SHORTENED_DIMENSION = 18
#: Dimensions up to which the distance is looked at while codes are grown; and how many are kept.
CHECKED = 16
MAX_CODES = 300
#: Fields of more than 2^MAX_DEGREE elements are left out.
MAX_DEGREE = 14


@dataclasses.dataclass(frozen=True)
class Code:
    """A binary linear code.

    Attributes:
      name: for messages.
      generators: [k, L] of 0 and 1, linearly independent.
    """

    name: str
    generators: np.ndarray

    def words(self) -> np.ndarray:
        """All 2^k words, packed [2^k, W]."""
        rows = packed.pack(self.generators)
        result = np.zeros((1, rows.shape[1]), np.uint64)
        for row in rows:
            result = np.concatenate([result, result ^ row])
        return result


def keeps(words: np.ndarray, distance: int) -> bool:
    """Whether no word of even weight but zero is lighter than the distance."""
    weight = packed.weights(words)
    return not ((weight % 2 == 0) & (weight > 0) & (weight < distance)).any()


def cyclotomic_cosets(n: int) -> list[tuple[int, ...]]:
    """The orbits of s -> 2 s modulo an odd n, each from its smallest element."""
    seen: set[int] = set()
    cosets = []
    for s in range(n):
        if s not in seen:
            coset, x = [], s
            while x not in coset:
                coset.append(x)
                x = 2 * x % n
            seen.update(coset)
            cosets.append(tuple(coset))
    return cosets


@functools.cache
def _irreducible(n: int, s: int, size: int) -> np.ndarray:
    """Generators [size, n] of the cyclic code whose words are Tr(a b^(s i)), i = 0 ... n-1.

    b is an n-th root of unity, and b^s one of order r = n / gcd(n, s), in GF(2^size).  The bits
    of b^(s i) are linear functions of it, as the traces are, so they span the code.
    """
    r, m = n // math.gcd(n, s), size
    table = powers_of_primitive(m)
    step = len(table) // r
    times = s // math.gcd(n, s)
    elements = np.array([table[times * i % r * step] for i in range(n)], np.int64)
    bits = ((elements[None, :] >> np.arange(m)[:, None]) & 1).astype(np.uint8)
    return _independent(bits, size)


def _independent(rows: np.ndarray, size: int) -> np.ndarray:
    """The first `size` linearly independent rows over GF(2)."""
    kept: list[int] = []
    basis: list[int] = []
    for index, row in enumerate(rows):
        x = int("".join(map(str, row)), 2)
        for b in basis:
            x = min(x, x ^ b)
        if x:
            basis.append(x)
            basis.sort(reverse=True)
            kept.append(index)
    assert len(kept) == size
    return rows[kept]


def cyclic_code(length: int, representatives: tuple[int, ...]) -> Code:
    """The cyclic code of odd length, or extended cyclic code of even length, of some cosets.

    Its words are sum_s Tr(a_s b^(s i)) over the representatives s of cyclotomic cosets.  The place
    that extends a word is put first and makes its weight even, so that for a length of 2^m the
    places are 0 and the powers of a primitive element of GF(2^m).
    """
    n = length if length % 2 else length - 1
    sizes = {coset[0]: len(coset) for coset in cyclotomic_cosets(n)}
    rows = np.concatenate([_irreducible(n, s, sizes[s]) for s in representatives])
    if length != n:
        parity = rows.sum(1, keepdims=True).astype(np.uint8) % 2
        rows = np.concatenate([parity, rows], axis=1)
    kind = "cyclic" if length == n else "extended cyclic"
    cosets = ",".join(map(str, representatives))
    return Code(f"{kind} [{length},{len(rows)}] code of cosets {cosets}", rows)


def cyclic_codes(
    length: int, distance: int, most: int = MAX_DIMENSION, clock: Clock | None = None
) -> list[Code]:
    """Codes of `cyclic_code` whose even-weight words have the distance, large ones first.

    A code that contains another has no larger distance, so codes are grown a coset at a time from
    those that have it.  Those of more than CHECKED dimensions are not looked at.
    """
    n = length if length % 2 else length - 1
    cosets = cyclotomic_cosets(n) if n >= 3 else []
    sizes = {coset[0]: len(coset) for coset in cosets if len(coset) <= min(most, MAX_DEGREE)}
    if len(cosets) < 2 or sum(sizes.values()) < 2:
        return []
    first = {s: coset[0] for coset in cosets for s in coset}
    units = [u for u in range(1, n) if math.gcd(u, n) == 1 and first[u] == u]

    def same(chosen: tuple[int, ...]) -> tuple[int, ...]:
        """The least of equivalent codes: i -> u i permutes the places, s -> s / u the cosets."""
        return min(tuple(sorted(first[u * s % n] for s in chosen)) for u in units)

    kept: list[Code] = []
    seen: set[tuple[int, ...]] = {()}
    good: set[tuple[int, ...]] = {()}
    level: list[tuple[int, ...]] = [()]
    while level and len(kept) < MAX_CODES:
        following = []
        for chosen, (s, size) in itertools.product(level, sizes.items()):
            grown = tuple(sorted((*chosen, s)))
            if s in chosen or sum(sizes[x] for x in chosen) + size > most or same(grown) in seen:
                continue
            seen.add(same(grown))
            if clock is not None and clock.expired:
                return kept
            parts = itertools.combinations(grown, len(grown) - 1)
            if not all(same(part) in good for part in parts):
                continue
            code = cyclic_code(length, grown)
            if len(code.generators) > CHECKED or keeps(code.words(), distance):
                kept.append(code)
                good.add(same(grown))
                following.append(grown)
        level = following
    return sorted(kept, key=lambda code: -len(code.generators))


def lengths(branches: int) -> list[int]:
    """Code lengths worth shortening to N: N itself, a few more, and the next powers of two."""
    power = 1 << (branches - 1).bit_length()
    found = [branches, branches + 1, branches + 2, branches + 3, power - 1, power]
    return sorted({n for n in found if n >= max(branches, 4)})


def constant_weight_pools(
    branches: int,
    active: int,
    distance: int,
    rng: np.random.Generator,
    clock: Clock | None = None,
) -> Iterator[tuple[str, np.ndarray]]:
    """Sets of words of N_act ones at `distance` or more, from linear codes.

    From a code of length L >= N the words with given bits at L - N places, those places left out;
    from a coset of it the words of the right weight.

    Yields:
      (where they come from, packed words [M, W]).
    """
    clock = clock or Clock()
    for length in lengths(branches):
        most = MAX_DIMENSION if length == branches else SHORTENED_DIMENSION
        for code in cyclic_codes(length, distance, most, clock):
            if clock.expired:
                return
            words = code.words()
            weight = packed.weights(words)
            if not keeps(words, distance):
                continue
            extra = length - branches
            best = np.zeros((0, packed.width(branches)), np.uint64)
            name = code.name
            if extra == 0:
                best = words[weight == active]
                translates = packed.random_words(branches, active, 32, rng)
                translates = translates[: max(1, (1 << 21) // len(words))]
                for shift in translates:
                    coset = words ^ shift
                    found = coset[packed.weights(coset) == active]
                    if len(found) > len(best):
                        best, name = found, f"coset of the {code.name}"
            else:
                for ones in range(min(extra, 3) + 1):
                    table = packed.unpack(words[weight == active + ones], length)
                    left_out = rng.permutation(length)[:extra]
                    pattern = np.arange(extra) < ones
                    fits = (table[:, left_out] == pattern).all(1)
                    found = np.delete(table[fits], left_out, axis=1)
                    if len(found) > len(best):
                        best = packed.pack(found)
                        name = f"shortened {code.name}"
            if len(best) > 1:
                yield name, best

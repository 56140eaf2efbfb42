"""Groups of permutations of the branches, whose orbits are sets of codewords.

Under a transitive group every union of orbits of words uses every branch equally often.  So a
group here is a set of translations (a regular group, or a semiregular one, with few orbits of
branches), and a set of further maps that normalise it: more symmetry leaves fewer, larger orbits
to choose among.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np

from branchnets.families.coded.search import packed


@dataclasses.dataclass(frozen=True)
class Group:
    """The group of all products of a map and a translation.

    Attributes:
      name: for messages.
      translations: [T, N] permutations, the identity first; row t sends branch i to [t, i].
      maps: [H, N] permutations, the identity first.  Maps times translations is a group.
    """

    name: str
    translations: np.ndarray
    maps: np.ndarray

    @property
    def branches(self) -> int:
        """N."""
        return self.translations.shape[1]

    @property
    def order(self) -> int:
        """Products of a map and a translation."""
        return len(self.translations) * len(self.maps)

    @property
    def transitive(self) -> bool:
        """Whether the translations alone send branch 0 to every branch."""
        return len(np.unique(self.translations[:, 0])) == self.branches

    def with_map(self, name: str, image: np.ndarray) -> Group:
        """This group's translations with the powers of one permutation [N] that normalises them."""
        return Group(name, self.translations, powers(image))


def powers(permutation: np.ndarray) -> np.ndarray:
    """The powers of a permutation [N], the identity first: [order, N]."""
    identity = np.arange(len(permutation))
    rows, image = [identity], permutation
    while not np.array_equal(image, identity):
        rows.append(image)
        image = permutation[image]
    return np.stack(rows)


class Action:
    """Applies permutations of the branches to packed words, a byte at a time.

    Args:
      permutations: [G, N].
    """

    def __init__(self, permutations: np.ndarray):
        self.count, branches = permutations.shape
        self._bytes = -(-branches // 8)
        columns = packed.width(branches)
        single = np.zeros((self.count, 8 * self._bytes, columns), np.uint64)
        g = np.arange(self.count)[:, None]
        bit = np.uint64(1) << (permutations % 64).astype(np.uint64)
        single[g, np.arange(branches)[None, :], permutations // 64] = bit
        single = single.reshape(self.count, self._bytes, 8, columns)
        table = np.zeros((self.count, self._bytes, 256, columns), np.uint64)
        for i in range(8):  # words of a byte with bit i: those without it, and bit i's image
            table[:, :, 1 << i : 2 << i] = table[:, :, : 1 << i] | single[:, :, i, None]
        self._table = table

    def image(self, g: int, words: np.ndarray) -> np.ndarray:
        """The words [M, W] under permutation number g: [M, W]."""
        raw = np.ascontiguousarray(words, "<u8").view(np.uint8)
        result = self._table[g, 0][raw[:, 0]]
        for byte in range(1, self._bytes):
            result |= self._table[g, byte][raw[:, byte]]
        return result

    def images(self, words: np.ndarray) -> np.ndarray:
        """The words [M, W] under every permutation: [M, G, W]."""
        return np.stack([self.image(g, words) for g in range(self.count)], axis=1)


def abelian(moduli: tuple[int, ...]) -> Group:
    """The regular group Z_m1 x Z_m2 x ...; branch i has the mixed-radix digits of i."""
    digits = _digits(moduli)
    sums = (digits[:, None, :] + digits[None, :, :]) % np.array(moduli)
    name = "x".join(f"Z{m}" for m in moduli)
    if set(moduli) == {2} and len(moduli) > 1:
        name = f"GF(2)^{len(moduli)}"
    table = _number(sums, moduli)
    return Group(name, table, table[:1])


def abelian_types(order: int) -> list[tuple[int, ...]]:
    """Moduli of every abelian group of this order, the one with most automorphisms first."""
    factors: dict[int, int] = {}
    rest, p = order, 2
    while rest > 1:
        while rest % p == 0:
            factors[p] = factors.get(p, 0) + 1
            rest //= p
        p += 1
    per_prime = [[tuple(p**e for e in part) for part in _partitions(k)] for p, k in factors.items()]
    types = []
    for choice in itertools.product(*per_prime):
        # Coprime cyclic factors make one cyclic factor: Z2 x Z3 is Z6.
        longest = max(map(len, choice), default=0)
        padded = [sorted(part, reverse=True) + [1] * (longest - len(part)) for part in choice]
        types.append(tuple(math.prod(column) for column in zip(*padded, strict=True)) or (1,))
    return sorted(types, key=lambda moduli: -len(moduli))


def dihedral(branches: int) -> Group:
    """The dihedral group of N elements on itself, by left multiplication; N even.

    Branch 2 i + s is the element r^i f^s with f r = r^-1 f.
    """
    half = branches // 2
    i, s = np.divmod(np.arange(branches), 2)
    sign = 1 - 2 * s
    table = 2 * ((i[:, None] + sign[:, None] * i[None, :]) % half) + (s[:, None] ^ s[None, :])
    return Group(f"D{half}", table, table[:1])


def semiregular(branches: int, order: int) -> Group:
    """Z_order on floor(N / order) cycles of branches; the rest are fixed."""
    cycles = branches // order
    i = np.arange(branches)
    shifted = (i[None, :] // order) * order + (i[None, :] + np.arange(order)[:, None]) % order
    # i % order is the place in the cycle since cycles start at multiples of the order.
    table = np.where(i[None, :] < cycles * order, shifted, i[None, :])
    return Group(f"Z{order} on {cycles} cycles", table, table[:1])


def random_automorphism(
    moduli: tuple[int, ...], rng: np.random.Generator, tries: int = 1000
) -> np.ndarray:
    """A permutation [N] that is a random automorphism of Z_m1 x Z_m2 x ...

    For moduli (2, 2, ..., 2) these are the invertible linear maps of GF(2)^m.
    """
    digits = _digits(moduli)
    m = np.array(moduli)
    for _ in range(tries):
        # The image of generator j must have an order that divides m_j.
        images = np.stack(
            [rng.integers(0, m) * (m // np.gcd(m, moduli[j])) % m for j in range(len(m))]
        )
        image = _number(digits @ images % m, moduli)
        if len(np.unique(image)) == len(image):
            return image
    return np.arange(len(digits))


def linear_map(images: tuple[int, ...]) -> np.ndarray:
    """The permutation of GF(2)^m that sends the basis 1, 2, 4, ... to `images`: [2^m]."""
    result = np.zeros(1, np.int64)
    for image in images:
        result = np.concatenate([result, result ^ image])
    return result


def multipliers(order: int) -> list[int]:
    """The units u of Z_order but 1: x -> u x normalises the cyclic group."""
    return [u for u in range(2, order) if math.gcd(u, order) == 1]


def multiplied(group: Group, order: int, u: int) -> Group:
    """A group of `abelian((order,))` or `semiregular(N, order)` with x -> u x in every cycle."""
    i = np.arange(group.branches)
    image = (i // order) * order + (i % order) * u % order
    image = np.where(i < group.branches // order * order, image, i)
    return group.with_map(f"{group.name} with x -> {u} x", image)


def _partitions(n: int, largest: int | None = None) -> list[tuple[int, ...]]:
    if n == 0:
        return [()]
    largest = n if largest is None else min(largest, n)
    return [
        (first, *rest) for first in range(largest, 0, -1) for rest in _partitions(n - first, first)
    ]


def _digits(moduli: tuple[int, ...]) -> np.ndarray:
    """[N, len(moduli)]: the mixed-radix digits of 0 ... N-1, the first the lowest."""
    rest, columns = np.arange(math.prod(moduli)), []
    for m in moduli:
        columns.append(rest % m)
        rest = rest // m
    return np.stack(columns, axis=1)


def _number(digits: np.ndarray, moduli: tuple[int, ...]) -> np.ndarray:
    """The inverse of `_digits` on the last axis."""
    place = np.cumprod([1, *moduli[:-1]])
    return (digits * place).sum(-1)

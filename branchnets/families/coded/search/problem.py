"""What is searched for, and what was found."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from branchnets.errors import ConfigError
from branchnets.families.coded.search import balance, bounds, packed

#: Bounds and searches are made for networks' numbers of branches.
MAX_BRANCHES = 128


@dataclasses.dataclass(frozen=True)
class Request:
    """K codewords with N_act of N branches each.

    Attributes:
      classes: K.
      branches: N.
      active: N_act.
      min_distance: H_min wanted; None for the largest that can be reached.  Words of one weight
        are an even distance apart, so that an odd one means the next.

    Raises:
      ConfigError: no such scheme can be; the message names the nearest that the bounds allow.
    """

    classes: int
    branches: int
    active: int
    min_distance: int | None = None

    def __post_init__(self) -> None:
        k, n, a = self.classes, self.branches, self.active
        if k < 1:
            raise ConfigError(f"{k} classes: a scheme needs at least 1")
        if not 2 <= n <= MAX_BRANCHES:
            raise ConfigError(f"{n} branches: a scheme has 2 to {MAX_BRANCHES}")
        if not 1 <= a < n:
            nearest = min(max(a, 1), n - 1)
            raise ConfigError(
                f"{a} active of {n} branches: a codeword has 1 to {n - 1} ones; the nearest "
                f"request is {nearest} active"
            )
        if k > (most := math.comb(n, a)):
            raise ConfigError(
                f"{k} classes need different codewords, and there are only {most} of {a} ones "
                f"among {n}; the nearest requests are {most} classes{self._roomier()}"
            )
        d = self.min_distance
        if d is None:
            return
        if d < 1:
            raise ConfigError(
                f"a minimum distance of {d}: different words of one weight are at least 2 apart"
            )
        d += d % 2
        if k > 1 and d > (largest := bounds.largest_distance(k, n, a)):
            most = bounds.upper_bound(n, d, a)
            raise ConfigError(
                f"{k} words of {a} ones among {n} cannot all be {d} apart: at most {most} "
                f"{'word' if most == 1 else 'words'} can ({bounds.bound_name(n, d, a)}); the "
                f"nearest requests are a minimum distance of {largest}, or {most} classes"
            )

    def _roomier(self) -> str:
        """The nearest N_act and N with words enough, as the rest of a sentence."""
        k, n, a = self.classes, self.branches, self.active
        fits = [x for x in range(1, n) if math.comb(n, x) >= k]
        text = f", {min(fits, key=lambda x: abs(x - a))} active" if fits else ""
        if a > n // 2:
            return text
        more = next((x for x in range(n, MAX_BRANCHES + 1) if math.comb(x, a) >= k), None)
        return text + (f", or {more} branches" if more else "")

    @property
    def halved(self) -> Request:
        """The request for the complement where N_act is above N / 2: the same distances."""
        if 2 * self.active <= self.branches:
            return self
        return dataclasses.replace(self, active=self.branches - self.active)


@dataclasses.dataclass(frozen=True)
class Scheme:
    """Codewords with their figures.

    Attributes:
      words: packed, [K, W].
      branches: N.
      source: how they were found.
    """

    words: np.ndarray
    branches: int
    source: str

    @property
    def codewords(self) -> np.ndarray:
        """[K, N] uint8 of 0 and 1."""
        return packed.unpack(self.words, self.branches)

    @property
    def min_distance(self) -> int | None:
        """H_min; None for one word."""
        return packed.min_distance(self.words)

    @property
    def spread(self) -> int:
        """S_max - S_min."""
        return balance.spread(self.words, self.branches)

    def complement(self) -> Scheme:
        """Ones for zeros."""
        source = f"complement of {self.source}"
        return Scheme(packed.pack(1 - self.codewords), self.branches, source)

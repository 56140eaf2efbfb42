"""Coding schemes: which branches work for which class (Coded ResNeXt, 3.2.1 and appendix A)."""

from __future__ import annotations

import dataclasses
import importlib.resources
import itertools
import pathlib

import numpy as np

from branchnets.errors import ConfigError, unknown
from branchnets.families.coded.search import constructions

#: The published schemes: name -> (K, N, N_act).
PUBLISHED = {
    "cifar10_5of10": (10, 10, 5),
    "cifar10_3of10": (10, 10, 3),
    "cifar100_8of20": (100, 20, 8),
    "cifar100_4of20": (100, 20, 4),
    "imagenet_16of32": (1000, 32, 16),
    "imagenet_8of32": (1000, 32, 8),
}


@dataclasses.dataclass(frozen=True)
class CodingScheme:
    """One codeword a class.

    Attributes:
      name: shown in messages.
      codewords: [K, N] uint8 of 0 and 1; row k is w_k.

    Raises:
      ValueError: not a table of 0 and 1, uneven weights, or two classes with one codeword.
    """

    name: str
    codewords: np.ndarray

    def __post_init__(self) -> None:
        words = np.asarray(self.codewords)
        if words.ndim != 2 or not words.size or not np.isin(words, (0, 1)).all():
            raise ConfigError(
                f"coding scheme {self.name}: need a [classes, branches] table of 0, 1"
            )
        weights = words.sum(1)
        if (weights != weights[0]).any() or not weights[0]:
            raise ConfigError(
                f"coding scheme {self.name}: every codeword must have the same number of ones, "
                f"found {weights.min()} to {weights.max()} (class {int(weights.argmin())})"
            )
        _, first, inverse = np.unique(words, axis=0, return_index=True, return_inverse=True)
        twins = np.flatnonzero(first[inverse.ravel()] != np.arange(len(words)))
        if twins.size:
            other = int(first[inverse.ravel()][twins[0]])
            raise ConfigError(
                f"coding scheme {self.name}: classes {other} and {int(twins[0])} have one codeword"
            )

    @property
    def num_classes(self) -> int:
        """K."""
        return self.codewords.shape[0]

    @property
    def branches(self) -> int:
        """N."""
        return self.codewords.shape[1]

    @property
    def active(self) -> int:
        """N_act, the ones in every codeword."""
        return int(self.codewords[0].sum())

    @property
    def min_distance(self) -> int:
        """H_min, the smallest Hamming distance of two codewords."""
        words = self.codewords.astype(np.int64)
        shared = words @ words.T
        np.fill_diagonal(shared, -1)
        return int(2 * (self.active - shared.max()))

    @property
    def column_sums(self) -> np.ndarray:
        """[N]: the classes that each branch works for."""
        return self.codewords.sum(0, dtype=np.int64)

    def complement(self, name: str) -> CodingScheme:
        """Ones for zeros: the same distances, N - N_act ones."""
        return CodingScheme(name, 1 - self.codewords)

    def require(self, num_classes: int, branches: int, active: int) -> CodingScheme:
        """This scheme, or ValueError if it is not for so many classes, branches and ones."""
        found = (self.num_classes, self.branches, self.active)
        if found != (num_classes, branches, active):
            raise ConfigError(
                f"coding scheme {self.name} has {found[0]} classes, {found[1]} branches and "
                f"{found[2]} active; the block needs {num_classes}, {branches} and {active}"
            )
        return self


def parse_scheme(name: str, text: str) -> CodingScheme:
    """Reads one codeword of 0 and 1 a line; line number = class index."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len({len(line) for line in lines}) != 1 or set("".join(lines)) - set("01"):
        raise ConfigError(f"coding scheme {name}: need lines of 0 and 1 of equal length")
    return CodingScheme(name, np.array([list(map(int, line)) for line in lines], np.uint8))


def affine_planes(name: str = "imagenet_4of32") -> CodingScheme:
    """1000 words of 4 ones among 32: planes of the affine geometry AG(5, 2).

    Four points of GF(2)^5 form a plane when they add up to zero; two planes share at most two
    points, so H_min is 4, and the 8 translates of a plane cover every point once, so the first
    125 parallel classes give every branch 125 classes.  Stands for the scheme of ratio 4/32 that
    appendix B tried (Differs: the authors' table has the same H_min and column sums).
    """
    seen: set[frozenset[int]] = set()
    words = []
    for a, b in itertools.combinations(range(1, 32), 2):
        direction = frozenset((0, a, b, a ^ b))
        if direction in seen:
            continue
        seen.add(direction)
        translates = {frozenset(point ^ shift for point in direction) for shift in range(32)}
        words.extend(sorted(map(sorted, translates)))
        if len(words) == 1000:
            break
    table = np.zeros((1000, 32), np.uint8)
    for row, points in enumerate(words):
        table[row, points] = 1
    return CodingScheme(name, table)


#: Computed schemes: for the variants of appendix B, and those whose H_min no scheme of 1000 classes
#: and their ratio exceeds.  The first that fits is the default of `scheme_for`, so the better ones
#: are last.  Differs: the paper's have H_min 10 and 6, with column sums that differ by up to 2.
DERIVED = {
    "imagenet_24of32": lambda: load_scheme("imagenet_8of32").complement("imagenet_24of32"),
    "imagenet_4of32": affine_planes,
    "imagenet_16of32_d12": lambda: CodingScheme("imagenet_16of32_d12", constructions.bch_pairs()),
    "imagenet_8of32_d8": lambda: CodingScheme(
        "imagenet_8of32_d8", constructions.translation_orbits()
    ),
    "imagenet_24of32_d8": lambda: load_scheme("imagenet_8of32_d8").complement("imagenet_24of32_d8"),
}


def scheme_names() -> list[str]:
    """The schemes that need no file."""
    return [*PUBLISHED, *DERIVED]


def load_scheme(name: str) -> CodingScheme:
    """A scheme by name (:func:`scheme_names`), or from a text file of one codeword a line.

    Raises:
      ValueError: no such name or file, or a table that is not a coding scheme.
    """
    if name in PUBLISHED:
        folder = importlib.resources.files("branchnets.families.coded") / "schemes"
        return parse_scheme(name, (folder / f"{name}.txt").read_text())
    if name in DERIVED:
        return DERIVED[name]()
    path = pathlib.Path(name)
    if not path.is_file():
        raise unknown("coding scheme (nor is it a file)", name, scheme_names())
    return parse_scheme(name, path.read_text())


def scheme_for(num_classes: int, branches: int, active: int) -> CodingScheme:
    """The scheme at hand for a block of this shape.

    Raises:
      ValueError: none is; the message lists those that are.
    """
    for name in scheme_names():
        scheme = load_scheme(name)
        if (scheme.num_classes, scheme.branches, scheme.active) == (num_classes, branches, active):
            return scheme
    raise ConfigError(
        f"no coding scheme for {num_classes} classes, {branches} branches, {active} active; "
        f"give a file in config.coded.schemes, or use the numbers of: {', '.join(scheme_names())}"
    )

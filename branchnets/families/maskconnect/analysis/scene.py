"""Where everything lies in a connectivity diagram (MaskConnect Fig. 3, GateConnect Fig. 2).

Modules are rows from top to bottom and branches squares from left to right.  One unit is the
distance of two squares; y grows upwards.  Nothing is drawn here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from branchnets.families.maskconnect.analysis.wiring import Wiring

#: Half the side of a square, and the radius of a circle.
HALF, RADIUS = 0.31, 0.42

Place = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Square:
    """One branch.

    Attributes:
      module, branch: which.
      centre: where.
      alive: whether it reaches the output.
    """

    module: str
    branch: int
    centre: Place
    alive: bool


@dataclasses.dataclass(frozen=True)
class Bundle:
    """The edges that lead into one module, or from the last one to the head.

    Attributes:
      module: that reads; "head" at the end.
      starts, ends: [n, 2], upper and lower ends.
      weights: [n], above zero; of real masks, relative to the largest in the network.
      alive: [n], whether what reads reaches the output; then so does what is read.
    """

    module: str
    starts: np.ndarray
    ends: np.ndarray
    weights: np.ndarray
    alive: np.ndarray


@dataclasses.dataclass(frozen=True)
class Scene:
    """A diagram.

    Attributes:
      squares: module by module.
      bundles: from the stem's down to the head's.
      stem, head: centres of the circles.
      rows: (module, y, branches that reach the output, branches).
      width, height: of all of it.
    """

    squares: tuple[Square, ...]
    bundles: tuple[Bundle, ...]
    stem: Place
    head: Place
    rows: tuple[tuple[str, float, int, int], ...]
    width: float
    height: float


def layout(wiring: Wiring) -> Scene:
    """Places the branches and edges of a network."""
    widest = max(spec.branches for spec in wiring.modules.values())
    rise = float(np.clip(widest / 10, 1.9, 3.0))
    names = list(wiring.modules)
    heights = {name: -rise * row for row, name in enumerate(names)}
    squares, rows = [], []
    for name, spec in wiring.modules.items():
        alive = np.isin(np.arange(spec.branches), wiring.kept[name])
        squares += [
            Square(name, j, (float(x), heights[name]), bool(alive[j]))
            for j, x in enumerate(_columns(spec.branches))
        ]
        rows.append((name, heights[name], int(alive.sum()), spec.branches))
    stem, head = (0.0, rise), (0.0, heights[names[-1]] - rise)
    return Scene(
        tuple(squares),
        tuple(_bundles(wiring, heights, stem, head)),
        stem,
        head,
        tuple(rows),
        float(widest),
        stem[1] - head[1] + 2 * RADIUS,
    )


def _columns(branches: int) -> np.ndarray:
    """x of the squares of a row, centred."""
    return np.arange(branches) - (branches - 1) / 2


def _bundles(
    wiring: Wiring, heights: dict[str, float], stem: Place, head: Place
) -> Iterator[Bundle]:
    names = list(wiring.modules)
    largest = max((float(w.max()) for w in wiring.weights.values()), default=1.0)
    columns = {name: _columns(spec.branches) for name, spec in wiring.modules.items()}
    alive = {n: np.isin(np.arange(len(c)), wiring.kept[n]) for n, c in columns.items()}

    first, last = names[0], names[-1]
    top = np.stack([columns[first], np.full(len(columns[first]), heights[first] + HALF)], 1)
    below_stem = np.broadcast_to([stem[0], stem[1] - RADIUS], top.shape)
    yield Bundle(first, below_stem, top, np.ones(len(top)), alive[first])
    for before, name in zip(names, names[1:], strict=False):
        reader, read = np.nonzero(wiring.weights[name] > 0)
        starts = np.stack([columns[before][read], np.full(len(read), heights[before] - HALF)], 1)
        ends = np.stack([columns[name][reader], np.full(len(read), heights[name] + HALF)], 1)
        weights = wiring.weights[name][reader, read] / largest
        yield Bundle(name, starts, ends, weights, alive[name][reader])
    bottom = np.stack([columns[last], np.full(len(columns[last]), heights[last] - HALF)], 1)
    above_head = np.broadcast_to([head[0], head[1] + RADIUS], bottom.shape)
    yield Bundle("head", bottom, above_head, np.ones(len(bottom)), alive[last])

"""What the cells of a sweep found: averages over seeds, and lines through them."""

from __future__ import annotations

import dataclasses
import fnmatch
import itertools
import json
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from branchnets.engine import config as configs
from branchnets.families.study import Reference
from branchnets.storage import AnyPath
from branchnets.sweeps import results
from branchnets.sweeps.grid import Cell


@dataclasses.dataclass(frozen=True)
class Found:
    """A cell with what it found.

    Attributes:
      cell: the run.
      figures: name -> number or text, of summary.json and merits; None while it is not finished.
    """

    cell: Cell
    figures: Mapping[str, Any] | None


@dataclasses.dataclass(frozen=True)
class Point:
    """The cells that differ in the seed alone.

    Attributes:
      values: label -> value of the swept fields.
      cells: at least one.
    """

    values: Mapping[str, Any]
    cells: tuple[Found, ...]

    @property
    def finished(self) -> tuple[Found, ...]:
        """Those with figures."""
        return tuple(found for found in self.cells if found.figures is not None)

    def numbers(self, name: str) -> list[float]:
        """A figure of every finished cell that has it."""
        figures = (found.figures or {} for found in self.finished)
        return [known[name] for known in figures if is_number(known.get(name))]

    def reference(self, figure: str, references: Iterable[Reference]) -> Reference | None:
        """What the paper prints for this point."""
        config = self.cells[0].cell.config
        flat = configs.flatten(config)
        for known in references:
            if (
                known.fields
                and known.figure == figure
                and fits(known, config)
                and all(flat.get(path) == value for path, value in known.fields.items())
            ):
                return known
        return None


@dataclasses.dataclass(frozen=True)
class Line:
    """The points of one line of a figure: they differ in the field on the x axis alone.

    Attributes:
      values: of the other fields.
      points: (x, point), in the order of the axis.
    """

    values: Mapping[str, Any]
    points: tuple[tuple[Any, Point], ...]


def fits(reference: Reference, config: Any) -> bool:
    """Whether a printed number is about this network and data set."""
    return (config.model.name, config.data.name) == (reference.model, reference.dataset)


def collect(cells: Iterable[Cell], runs: AnyPath) -> list[Found]:
    """Reads the finished cells of a sweep from where their run directories are."""
    found = []
    for cell in cells:
        folder = runs / cell.name
        if results.finished(folder):
            _, figures = results.load(folder)
            found.append(Found(cell, {**figures, **results.merits(folder)}))
        else:
            found.append(Found(cell, None))
    return found


def points(found: Iterable[Found]) -> list[Point]:
    """The cells by their values without the seed, in their order."""
    groups: dict[str, list[Found]] = {}
    for one in found:
        groups.setdefault(_key(one.cell.point), []).append(one)
    return [Point(group[0].cell.point, tuple(group)) for group in groups.values()]


def names(found: Iterable[Found], patterns: Sequence[str]) -> list[str]:
    """The figures that patterns stand for: pattern by pattern, numbers in names in order."""
    known = {n for one in found for n, value in (one.figures or {}).items() if is_number(value)}
    matched = (sorted(fnmatch.filter(known, pattern), key=_natural) for pattern in patterns)
    return list(dict.fromkeys(itertools.chain.from_iterable(matched)))


def lines(all_points: Sequence[Point], label: str) -> list[Line]:
    """The lines along one field: one for every choice of the others that has several points."""
    groups: dict[str, list[Point]] = {}
    for point in all_points:
        groups.setdefault(_key(_without(point.values, label)), []).append(point)
    found = []
    for group in groups.values():
        if len(group) > 1:
            axis = sorted(((p.values[label], p) for p in group), key=lambda pair: _order(pair[0]))
            found.append(Line(_without(group[0].values, label), tuple(axis)))
    return found


def is_number(value: Any) -> bool:
    """Whether a value has a place on an axis; true and false have none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; 0 for one value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _without(values: Mapping[str, Any], label: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != label}


def _key(values: Mapping[str, Any]) -> str:
    return json.dumps(configs.plain(dict(values)), sort_keys=True)


def _order(value: Any) -> tuple[bool, Any]:
    return (True, value) if is_number(value) else (False, 0)  # others keep their order


def _natural(name: str) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]

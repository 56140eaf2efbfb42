"""The report of a sweep: a section for every swept field, and the table of all its cells."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from branchnets import folders
from branchnets.engine.records.rundir import replace
from branchnets.errors import ReportError
from branchnets.families.base import Family
from branchnets.report.content import Section, Table
from branchnets.report.write import write_report
from branchnets.storage import AnyPath
from branchnets.sweeps import collect, draw, results
from branchnets.sweeps.collect import Found, Point
from branchnets.sweeps.grid import Grid
from branchnets.sweeps.names import label as text_of

TABLE = "table.md"
_LOCK = ".report.lock"
_WAIT = 120.0  # seconds for the report of another shard; more than drawing takes


def write(
    grid: Grid, out: Path, header: Mapping[str, str], runs: AnyPath | None = None
) -> AnyPath | None:
    """Writes ``report/`` and ``table.md``; None while no cell is finished.

    Shards that end together take turns, so that the last report knows all that is finished.

    Args:
      grid: all of it, finished or not.
      out: the directory of the sweep.
      header: facts about it, name -> text.
      runs: where the run directories are; in `out` by default.

    Raises:
      UserError: it cannot be written.
    """
    runs = out if runs is None else runs
    if not any(results.finished(runs / cell.name) for cell in grid.cells):
        return None
    lock = out / _LOCK
    try:
        lock.touch()
    except OSError as error:
        raise ReportError(f"{out} cannot be written: {error.strerror}.") from error
    with folders.alone(lock, _WAIT):
        return _write(grid, out, header, runs)


def _write(grid: Grid, out: Path, header: Mapping[str, str], runs: AnyPath) -> AnyPath:
    found = collect.collect(grid.cells, runs)
    done = [one for one in found if one.figures is not None]
    points = collect.points(found)
    facts = {
        **header,
        "model": grid.base.model.name,
        "data": grid.base.data.name,
        "cells": f"{len(done)} of {len(found)} finished",
        "commit": ", ".join(
            sorted({str(one.figures["commit"])[:7] for one in done if one.figures})
        ),
    }
    names = shown(grid.family, found)
    table = points_table(points, grid, names)
    replace(out / TABLE, results.markdown(table.headers, _texts(table)) + "\n")
    sections = [_field(label, points, found, grid.family) for label in grid.swept]
    sections = [section for section in sections if section.figures]
    sections.append(Section("All cells", tables=(table, cells_table(found, grid, names))))
    return write_report(out / "report", f"Sweep of {grid.base.model.name}", sections, facts)


def shown(family: type[Family], found: Sequence[Found]) -> list[str]:
    """The figures of all panels."""
    return collect.names(found, [name for panel in family.panels for name in panel.figures])


def _field(
    label: str, points: Sequence[Point], found: Sequence[Found], family: type[Family]
) -> Section:
    lines = collect.lines(points, label)
    merit: dict[str, Any] = {}
    for line in lines:
        own = {name: text_of(value) for name, value in line.values.items()}
        key = ", ".join(f"{name}={text}" for name, text in own.items()) or label
        merit[key] = {text_of(x): _averages(point, found, family) for x, point in line.points}
    return Section(
        f"Varied: {label}",
        figures=tuple(draw.figures(label, lines, family, found)),
        figures_of_merit=merit,
    )


def _averages(point: Point, found: Sequence[Found], family: type[Family]) -> dict[str, Any]:
    averages = {}
    for name in shown(family, found):
        if numbers := point.numbers(name):
            mean, std = collect.mean_std(numbers)
            averages[name] = {"mean": mean, "std": std, "seeds": len(numbers)}
    return averages


def points_table(points: Sequence[Point], grid: Grid, names: Sequence[str]) -> Table:
    """One row for the cells that differ in the seed alone."""
    printed = [known for known in grid.family.references if known.fields]
    with_paper = [
        name for name in names if any(p.reference(name, printed) is not None for p in points)
    ]
    headers = (
        *grid.swept, "seeds", *names, *(f"paper: {name}" for name in with_paper),
        "minutes", "commit",
    )  # fmt: skip
    rows = []
    for point in points:
        seeds = ", ".join(str(one.cell.seed) for one in point.finished)
        known = (point.reference(name, printed) for name in with_paper)
        commits = {str(one.figures["commit"])[:7] for one in point.finished if one.figures}
        rows.append(
            (
                *(text_of(point.values[label]) for label in grid.swept),
                seeds or None,
                *(results.cell(numbers) if (numbers := point.numbers(n)) else None for n in names),
                *(None if reference is None else reference.value for reference in known),
                _minutes(point.numbers("seconds")),
                ", ".join(sorted(commits)) or None,
            )
        )
    caption = "Mean ± sample standard deviation over the seeds; – where no run is finished."
    return Table("sweep_points", caption, headers, tuple(rows))


def _minutes(seconds: Sequence[float]) -> float | None:
    return round(statistics.fmean(seconds) / 60, 2) if seconds else None


def cells_table(found: Sequence[Found], grid: Grid, names: Sequence[str]) -> Table:
    """One row a run, its figures in full."""
    headers = ("cell", *grid.swept, "seed", *names, "steps", "seconds", "commit")
    rows = []
    for one in found:
        figures = one.figures or {}
        rows.append(
            (
                one.cell.name,
                *(text_of(one.cell.values[label]) for label in grid.swept),
                one.cell.seed,
                *(figures.get(name) for name in (*names, "steps", "seconds", "commit")),
            )
        )
    return Table("sweep_cells", "Every run; seconds are of training.", headers, tuple(rows))


def _texts(table: Table) -> list[list[str]]:
    def text(value: Any) -> str:
        if value is None:
            return results.DASH
        return f"{value:g}" if isinstance(value, float) else str(value)

    return [[text(value) for value in row] for row in table.rows]

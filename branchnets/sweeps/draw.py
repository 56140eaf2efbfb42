"""The figures of a sweep: what was found against what was varied."""

from __future__ import annotations

import fnmatch
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from branchnets.families.base import Family
from branchnets.families.study import Panel, Reference
from branchnets.report import style
from branchnets.report.content import Figure
from branchnets.sweeps import collect
from branchnets.sweeps.collect import Line, Point
from branchnets.sweeps.names import label as text_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = "osD^vPX*"


def figures(
    label: str, lines: Sequence[Line], family: type[Family], found: Sequence[collect.Found]
) -> list[Figure]:
    """The figures of one swept field.

    With several other swept fields, a figure shows the lines of the first of them, and every
    choice of the rest has a figure of its own.

    Args:
      label: the field.
      lines: as :func:`branchnets.sweeps.collect.lines` finds them.
      family: says which panels there are, and what the paper prints.
      found: all cells.
    """
    panels = [(p, names) for p in family.panels if (names := collect.names(found, p.figures))]
    base = family.sweep_figures.get(label, f"ablation_{label}")
    by_rest: dict[str, list[Line]] = {}
    for line in lines:
        rest = dict(itertools.islice(_varied(line.values, lines).items(), 1, None))
        by_rest.setdefault(_words(rest), []).append(line)
    return [
        _figure(_name(base, rest), label, group, panels, family.references, rest)
        for rest, group in by_rest.items()
        if panels and any(point.finished for line in group for _, point in line.points)
    ]


def _varied(values: Mapping[str, Any], lines: Sequence[Line]) -> dict[str, Any]:
    """The values that tell lines apart."""
    return {
        name: value
        for name, value in values.items()
        if len({text_of(line.values[name]) for line in lines}) > 1
    }


def _words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {text_of(value)}" for name, value in values.items())


def _name(base: str, rest: str) -> str:
    tail = re.sub(r"[^A-Za-z0-9.]+", "_", rest).strip("_")
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", f"{base}_{tail}" if tail else base)


def _figure(
    name: str,
    label: str,
    lines: Sequence[Line],
    panels: Sequence[tuple[Panel, list[str]]],
    references: Sequence[Reference],
    rest: str,
) -> Figure:
    columns = len(panels) if len(panels) <= 3 else (len(panels) + 1) // 2
    rows = -(-len(panels) // columns)
    size = (0.8 + 4.0 * columns, 0.4 + 3.4 * rows)
    drawing, axes = style.figure(*size, rows=rows, columns=columns, squeeze=False)
    for unused in axes.flat[len(panels) :]:
        unused.remove()
    values = list(dict.fromkeys(x for line in lines for x, _ in line.points))
    places = _places(values)
    for one, (panel, shown) in zip(axes.flat, panels, strict=False):
        _panel(one, panel, shown, label, lines, places)
        _paper(one, panel, lines, references, places)
        _ticks(one, values, places)
        if panel.percent:
            from matplotlib.ticker import PercentFormatter

            one.yaxis.set_major_formatter(PercentFormatter(1.0))
        one.margins(y=0.2)  # room for the legend
        if len(lines) > 1 or len(shown) > 1 or len(one.get_legend_handles_labels()[0]) > 1:
            style.legend(one)
    return Figure(name, _caption(label, lines, panels, rest), drawing)


def _places(values: Sequence[Any]) -> dict[str, float]:
    """Where values lie on the x axis; what is no number gets 0, 1, 2, ..."""
    numeric = all(map(collect.is_number, values))
    return {text_of(v): float(v) if numeric else float(i) for i, v in enumerate(values)}


def _panel(
    axes: Axes,
    panel: Panel,
    shown: Sequence[str],
    label: str,
    lines: Sequence[Line],
    places: Mapping[str, float],
) -> None:
    several = len(lines) > 1
    title = panel.title
    if several:
        # With lines for a second field, one figure a panel can be told apart: of the first
        # pattern the last, which of blocks is the deepest.
        first = [name for name in shown if fnmatch.fnmatchcase(name, panel.figures[0])] or shown
        title = panel.title if len(shown) == 1 else f"{panel.title}: {_short(first[-1], shown)}"
        shown = first[-1:]
    style.label(axes, label, panel.y, title)
    series = [(line, name) for line in lines for name in shown]
    for number, (line, name) in enumerate(series):
        called = _words(_varied(line.values, lines)) if several else _short(name, shown)
        _series(axes, line, name, called, number, len(series), places)


def _series(
    axes: Axes,
    line: Line,
    name: str,
    called: str,
    number: int,
    count: int,
    places: Mapping[str, float],
) -> None:
    numeric = all(collect.is_number(x) for x, _ in line.points)
    shift = 0.0 if numeric else 0.3 * (number - (count - 1) / 2) / max(count, 1)
    drawn = [(places[text_of(x)] + shift, p.numbers(name)) for x, p in line.points]
    drawn = [(x, numbers) for x, numbers in drawn if numbers]
    if not drawn:
        return
    averages = [collect.mean_std(numbers) for _, numbers in drawn]
    axes.errorbar(
        [x for x, _ in drawn],
        [mean for mean, _ in averages],
        yerr=[std for _, std in averages] if any(len(n) > 1 for _, n in drawn) else None,
        label=called,
        marker=_MARKERS[number % len(_MARKERS)],
        markersize=5,
        linestyle="-" if numeric else "none",
        capsize=3,
        linewidth=1.4,
    )


def _short(name: str, shown: Sequence[str]) -> str:
    """A figure's name in the legend: the part in which the names of a panel differ."""
    heads = {other.partition("/")[0] for other in shown}
    return name if len(heads) > 1 or len(shown) == 1 else name.partition("/")[2] or name


def _paper(
    axes: Axes,
    panel: Panel,
    lines: Sequence[Line],
    references: Sequence[Reference],
    places: Mapping[str, float],
) -> None:
    config = lines[0].points[0][1].cells[0].cell.config
    for name in panel.figures:
        for known in references:
            if not known.fields and known.figure == name and collect.fits(known, config):
                style.reference(axes, known.value, f"{known.text}: {_shown(known.value, panel)}")
        marks = [
            (places[text_of(x)], printed.value)
            for line in lines
            for x, point in line.points
            if (printed := point.reference(name, references)) is not None
        ]
        if marks:
            xs, ys = zip(*marks, strict=True)
            axes.plot(
                xs, ys, "_", color=style.GREY, markersize=16, markeredgewidth=2, label="paper"
            )


def _shown(value: float, panel: Panel) -> str:
    return f"{value:.2%}" if panel.percent else f"{value:g}"


def _ticks(axes: Axes, values: Sequence[Any], places: Mapping[str, float]) -> None:
    axes.set_xticks([places[text_of(v)] for v in values], [text_of(v) for v in values])
    if not all(map(collect.is_number, values)):
        axes.set_xlim(-0.6, len(values) - 0.4)


def _caption(
    label: str, lines: Sequence[Line], panels: Sequence[tuple[Panel, list[str]]], rest: str
) -> str:
    points: list[Point] = [point for line in lines for _, point in line.points]
    counts = sorted({len(point.finished) for point in points})
    runs = "–".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    first, fixed = lines[0].values, ""
    constant = {n: v for n, v in first.items() if n not in _varied(first, lines)}
    if constant or rest:
        fixed = f" Held fixed: {', '.join(filter(None, (_words(constant), rest)))}."
    return (
        f"{', '.join(panel.title for panel, _ in panels)} against {label}: mean and sample "
        f"standard deviation; runs (seeds) a point: {runs}.{fixed}"
    )

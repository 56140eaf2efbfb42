"""The section on finished runs: all of them, and Tables 1 to 4 beside the paper's numbers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from branchnets.families.maskconnect import paper
from branchnets.families.maskconnect.analysis.groups import ASIDE, Group, differing, group
from branchnets.families.maskconnect.zoo import BUILDERS
from branchnets.families.study import Subject
from branchnets.report.content import Section, Table

if TYPE_CHECKING:
    from branchnets.families.maskconnect.family import MaskConnectFamily

#: Config fields that have a column of their own in the table of all runs.
_SHOWN = (
    "family", "model.name", "data.name", "model.connectivity", "model.fan_in", "model.aggregate",
    "epochs", "model.depths", "model.width", "model.branches", "maskconnect.phases",
)  # fmt: skip

#: Those that have one in a table of the paper, or that the row settles.
_IN_TABLES = ("model.name", "model.connectivity", "model.fan_in", "model.aggregate", "epochs")

_NAMES = {"full": "Fixed-Full", "learned": "Learned", "random": "Fixed-Random"}


def section(family: MaskConnectFamily, subject: Subject) -> Section | None:
    """Tables of the runs that were given; None without any."""
    del family
    if not subject.others:
        return None
    groups = group(subject.others)
    return Section(
        "Runs compared",
        _text(groups),
        (),
        (runs_table(groups), *(printed_table(table, groups) for table in paper.TABLES)),
        {"runs": len(subject.others), **_merit(groups)},
    )


def _text(groups: Sequence[Group]) -> str:
    count = sum(len(one.runs) for one in groups)
    lines = [
        f"{count} finished run{'s' if count > 1 else ''} of {len(groups)} "
        f"config{'s' if len(groups) > 1 else ''}; runs that differ in the seed alone share a row. "
        "Test accuracy of the last checkpoint, as best (mean ± sample standard deviation) in "
        "percent. --beside=DIR adds finished runs.",
        *(sentence for sentence in map(_against_full, *_pairs(groups))),
    ]
    return "\n\n".join(lines)


def _pairs(groups: Sequence[Group]) -> tuple[list[Group], list[Group]]:
    """Every group with the full connectivity of the same network, data and recipe."""
    full: dict[str, Group] = {}
    for one in groups:
        if one.connectivity == "full":
            full.setdefault(_place(one), one)
    pairs = [
        (one, full[_place(one)])
        for one in groups
        if one.ours and one.connectivity != "full" and _place(one) in full
    ]
    return [one for one, _ in pairs], [other for _, other in pairs]


#: What a recipe says of connections, in which a run may differ from one with full connectivity.
_OF_CONNECTIONS = ("model.connectivity", "model.fan_in", "model.aggregate", "maskconnect.")


def _place(one: Group) -> str:
    """What two runs must share so that their accuracies say something about connectivity."""
    aside = (*ASIDE, *_OF_CONNECTIONS)
    kept = {
        path: value
        for path, value in one.config.items()
        if value is not None and not path.startswith(aside)
    }
    return json.dumps(kept, sort_keys=True)


def _against_full(one: Group, full: Group) -> str:
    mine, theirs = one.spread("test_accuracy"), full.spread("test_accuracy")
    if mine is None or theirs is None:
        return f"{one.title} on {one.dataset} has no accuracy to compare."
    gap = 100 * (mine.mean - theirs.mean)
    spreads = [s.std for s in (mine, theirs) if s.std is not None]
    if len(spreads) < 2:
        note = "with too few runs to say how much of it is chance"
    else:
        error = 100 * (spreads[0] ** 2 / mine.runs + spreads[1] ** 2 / theirs.runs) ** 0.5
        note = f"with a standard error of {error:.2f} from {mine.runs} and {theirs.runs} runs"
    return (
        f"On {one.dataset}, {one.title} ({one.model}) is {abs(gap):.2f} points "
        f"{'above' if gap >= 0 else 'below'} the full connectivity of a ResNeXt, {note}."
    )


def runs_table(groups: Sequence[Group]) -> Table:
    """Every config that was given, other families and own data sets too."""
    more = differing(groups, _SHOWN)
    rows = []
    for one in groups:
        accuracy = one.spread("test_accuracy")
        active = one.active()
        total = sum(sum(values) for values in active.values()) / max(len(one.runs), 1)
        sizes = one.sizes
        rows.append(
            (
                one.model,
                one.architecture,
                one.dataset,
                one.connectivity,
                one.fan_in,
                one.aggregate,
                one.config.get("epochs"),
                ", ".join(map(str, one.seeds)),
                None if accuracy is None else accuracy.text(100),
                _millions(one.mean("parameters")),
                _millions(one.parameters_after),
                total if active else None,
                None if sizes is None else sizes.branches * sum(sizes.depths),
                _fields(one, more),
            )
        )
    return Table(
        "runs_compared",
        "All runs given. Parameters in millions, as trained and after pruning; active branches "
        "reach the output; both are means over the seeds. The last column has the other fields in "
        "which the configs differ.",
        (
            "model", "{D,w,C}", "data", "connectivity", "K", "aggregate", "epochs", "seeds",
            "accuracy (%)", "trained (M)", "pruned (M)", "active", "of", "differing",
        ),
        tuple(rows),
    )  # fmt: skip


def printed_table(table: paper.Printed, groups: Sequence[Group]) -> Table:
    """A table of the paper with what was measured here beside it.

    A cell that no run fills is None.  Configs that differ in more than the seed have rows of their
    own, so that a shortened or changed recipe is never averaged with the full one.
    """
    top5 = any(row.top5 is not None for row in table.rows)
    parameters = any(row.test is not None for row in table.rows)
    filling = [[one for one in groups if fills(one, row, table)] for row in table.rows]
    more = differing(itertools.chain(*filling), _IN_TABLES)
    empty: list[Group | None] = [None]
    rows: list[tuple[Any, ...]] = []
    for row, fitting in zip(table.rows, filling, strict=True):
        for one in fitting or empty:
            cells = _row(row, one, top5, parameters)
            rows.append((*cells, one and _fields(one, more)) if more else cells)
    runs = f" (of {table.runs} runs)" if table.runs else ""
    headers = ["{D,w,C}", "connectivity", "aggregate", "epochs", "runs"]
    headers += ["train (M)", "paper train", "test (M)", "paper test"] if parameters else []
    headers += ["top-1 (%)", "paper top-1"] + (["top-5 (%)", "paper top-5"] if top5 else [])
    headers += ["differing"] if more else []
    caption = (
        f"{table.title}: best (mean ± standard deviation) of the runs given, and what the paper "
        f"prints{runs}; – where no run is finished. Only unchanged networks on whole data sets "
        "count, with images of the paper's size."
    )
    caption += " Parameters as trained and after pruning." if parameters else ""
    caption += " The last column has the other fields in which the configs differ." if more else ""
    return Table(
        table.name,
        caption,
        tuple(headers),
        tuple(rows),
    )


def fills(one: Group, row: paper.Row, table: paper.Printed) -> bool:
    """Whether runs are of a row of a table: the network, the data and the connectivity."""
    return (
        one.ours
        and one.whole
        and (one.model, one.dataset) == (row.model, table.dataset)
        and one.config.get("data.crop_size") == table.crop_size
        and (one.connectivity, one.fan_in) == (row.connectivity, row.fan_in)
    )


def _row(row: paper.Row, one: Group | None, top5: bool, parameters: bool) -> tuple[Any, ...]:
    cells: list[Any] = [
        BUILDERS[row.model].architecture,
        f"{_NAMES[row.connectivity]}, K = {row.fan_in}",
        one and one.aggregate,
        one and one.config.get("epochs"),
        one and len(one.runs),
    ]
    if parameters:
        before, after = (one.mean("parameters"), one.parameters_after) if one else (None, None)
        cells += [_millions(before), row.train, _millions(after), row.test]
    cells += [_accuracy(one, "test_accuracy"), _printed(row.top1)]
    if top5:
        cells += [_accuracy(one, "test/top5_accuracy"), row.top5 and _printed(row.top5)]
    return tuple(cells)


def _fields(one: Group, paths: Sequence[str]) -> str | None:
    return "; ".join(f"{path}={one.config.get(path)}" for path in paths) or None


def _accuracy(one: Group | None, figure: str) -> str | None:
    found = one and one.spread(figure)
    return found.text(100) if found else None


def _printed(value: paper.Accuracy) -> str:
    if value.mean is None:
        return f"{value.best:g}"
    return f"{value.best:.2f} ({value.mean:.2f} ± {value.std:.2f})"


def _millions(value: float | None) -> float | None:
    return None if value is None else value / 1e6


def _merit(groups: Sequence[Group]) -> dict[str, Any]:
    """Name -> accuracies and sizes; a number tells configs of one title apart."""
    found: dict[str, Any] = {}
    for one in groups:
        accuracy = one.spread("test_accuracy")
        base = f"{one.model} on {one.dataset}, {one.title}"
        more = (f"{base} ({number})" for number in range(2, len(groups) + 1))
        name = next(n for n in itertools.chain([base], more) if n not in found)
        found[name] = {
            "runs": len(one.runs),
            "best": accuracy and accuracy.best,
            "mean": accuracy and accuracy.mean,
            "std": accuracy and accuracy.std,
            "parameters": one.mean("parameters"),
            "parameters_after_pruning": one.parameters_after,
        }
    return found

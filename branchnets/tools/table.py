"""Puts finished runs into one table: mean and standard deviation over seeds.

python -m branchnets.tools.table runs/coded_0 runs/coded_1 runs/plain_0 runs/plain_1
python -m branchnets.tools.table runs/* --metric=test_accuracy --metric=test/cross_entropy

Runs whose configs differ in the seed alone share a row.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from branchnets.errors import UserError, nearest
from branchnets.storage import AnyPath, as_path
from branchnets.sweeps.results import cell, load, markdown


def rows(folders: Sequence[AnyPath], metrics: Sequence[str]) -> list[list[str]]:
    """One row for each config: model, data, seeds, the metrics, commit."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for folder in folders:
        config, figures = load(folder)
        key = json.dumps({**config, "seed": None}, sort_keys=True)
        groups.setdefault(key, []).append(figures)
    known = {
        name
        for runs in groups.values()
        for run in runs
        for name, value in run.items()
        if isinstance(value, int | float)
    }
    for metric in metrics:
        if metric not in known:
            raise UserError(f"no run has a figure {metric!r}. {nearest(metric, known)}")
    table = []
    for runs in groups.values():
        seeds = ", ".join(str(run["seed"]) for run in runs)
        commits = ", ".join(sorted({run["commit"][:7] for run in runs}))
        cells = [cell([run[m] for run in runs if m in run]) for m in metrics]
        table.append([runs[0]["model"], runs[0]["dataset"], seeds, *cells, commits])
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m branchnets.tools.table", description="Finished runs as one table."
    )
    parser.add_argument("runs", nargs="+", type=as_path, metavar="RUN")
    parser.add_argument("--metric", action="append", help="path in summary.json; may be repeated")
    options = parser.parse_args(argv)
    metrics = options.metric or ["test_accuracy"]
    try:
        body = rows(options.runs, metrics)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(markdown(["model", "data", "seeds", *metrics, "commit"], body))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Runs a grid of configs and draws what it finds.

python -m branchnets.tools.sweep --config=configs/coded_digits.py --seeds=3 --out=runs/sweep
python -m branchnets.tools.sweep --config=configs/coded_digits.py --set=mu:1,6 --set=p_drop:0,0.1 \
    --out=runs/mu_p_drop --config.epochs=10

Every cell is a run directory under --out, or under --runs, which may be a gs:// URL, trained by
branchnets.main.  What is finished is skipped and what was interrupted goes on, so the same command
takes a sweep up again.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from branchnets.errors import ConfigError, UserError
from branchnets.storage import AnyPath, as_path, is_url
from branchnets.tools import common

if TYPE_CHECKING:
    from branchnets.sweeps.grid import Cell, Grid


def _parser() -> common.Parser:
    parser = common.Parser(
        prog="python -m branchnets.tools.sweep",
        description="Trains a grid of configs, one run directory a cell, and draws the results.",
        epilog="--config.FIELD=VALUE overrides a field in every cell. Values of --set are split at "
        'commas; tuples are written in parentheses: --set=\'schemes:("a.txt",),("b.txt",)\'. '
        "Exit status: 0 all done, 1 a cell failed, 2 bad input, 75 or 130 stopped: give the same "
        "command again to go on.",
    )
    parser.add_argument("--config", required=True, metavar="FILE[:ARGUMENTS]")
    parser.add_argument(
        "--out", required=True, type=_local, metavar="DIR",
        help="holds the runs, their logs, the table and the report",
    )  # fmt: skip
    parser.add_argument(
        "--runs", metavar="DIR|gs://BUCKET/DIR",
        help="holds the runs in place of --out, as where what computes them may be taken away",
    )  # fmt: skip
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME:VALUE,...",
        help="a field and its values; several make a product. Without any, the family's own "
        "ablations, one field at a time around the config",
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds 0 to N-1 for every cell")
    parser.add_argument("--shard", default="0/1", metavar="I/N", help="every N-th cell from I on")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="cells at once")
    parser.add_argument("--dry_run", action="store_true", help="list the cells, run nothing")
    parser.add_argument("--draw_only", action="store_true", help="run nothing, write the report")
    return parser


def _local(text: str) -> Path:
    """Where cells, which may be many at once, share a lock and write their logs."""
    if is_url(text):
        raise argparse.ArgumentTypeError(
            f"{text} is a URL; logs, table and report of a sweep are kept in a folder on a disk. "
            f"For the runs alone: --runs={text if text.startswith('gs://') else 'gs://BUCKET/DIR'}"
        )
    return Path(text).expanduser()


def _runs(options: argparse.Namespace) -> AnyPath:
    """Where the runs are."""
    if options.runs == "":
        raise ConfigError(
            "--runs is empty; name a folder or gs://BUCKET/DIR, or leave it out for --out."
        )
    return as_path(options.out if options.runs is None else options.runs)


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not int(match[1]) < int(match[2]):
        raise ConfigError(f"--shard is {text!r}; give I/N with I from 0 to N-1, such as 0/4.")
    return int(match[1]), int(match[2])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    overrides, rest = common.split_overrides(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_all(rest)
    try:
        return _sweep(options, tuple(overrides))
    except KeyboardInterrupt:  # before or after the cells, which take it themselves
        print("stopped.", file=sys.stderr)
        return 130
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _sweep(options: argparse.Namespace, overrides: tuple[str, ...]) -> int:
    from branchnets.report.write import check_folder
    from branchnets.sweeps import grid, run
    from branchnets.sweeps.fields import Source

    if options.jobs < 1:
        raise ConfigError(f"--jobs is {options.jobs}; it must be at least 1.")
    shard = _shard(options.shard)
    sweep = grid.make(Source(options.config, overrides), options.set, options.seeds)
    cells = sweep.shard(*shard)
    runs = _runs(options)
    run.check(cells, runs)
    run.check_left(cells, options.out, runs)
    if options.dry_run:
        return _list(sweep, cells, runs)
    check_folder(options.out / "report")  # now, not after hours of training
    outcome = run.Outcome()
    if not options.draw_only:
        merits = sweep.has_merits
        outcome = run.Runner(
            options.out, lambda cell: run.stages(cell, runs, merits), options.jobs
        )(cells)
    try:
        _report(sweep, options, runs, overrides)
    except UserError as error:
        if options.draw_only:
            raise
        print(f"error: {error}\nThe runs are whole; --draw_only draws again.", file=sys.stderr)
        return outcome.status or 1
    if outcome.failed:
        print(f"{len(outcome.failed)} failed: {', '.join(outcome.failed)}", file=sys.stderr)
    if outcome.status is not None:
        print("Stopped; the same command goes on from here.", file=sys.stderr)
        return outcome.status
    return 1 if outcome.failed else 0


def _list(sweep: Grid, cells: Sequence[Cell], runs: AnyPath) -> int:
    from branchnets.sweeps import results

    for cell in cells:
        folder = runs / cell.name
        state = "finished" if results.finished(folder) else "begun" if folder.is_dir() else ""
        print(f"{cell.name:<40} {state}".rstrip())
    print(f"{len(cells)} of {len(sweep.cells)} cells")
    return 0


def _report(
    sweep: Grid, options: argparse.Namespace, runs: AnyPath, overrides: tuple[str, ...]
) -> None:
    from branchnets.sweeps import report

    header = {
        "config": " ".join((options.config, *overrides)),
        "varied": "; ".join(options.set) or "one field at a time around the config",
        "runs": str(runs),
    }
    page = report.write(sweep, options.out, header, runs)
    if page is None:
        print("No cell is finished yet, so there is nothing to draw.", file=sys.stderr)
        return
    print((options.out / report.TABLE).read_text(), end="")
    print(f"Report: {page}")


if __name__ == "__main__":
    sys.exit(main())

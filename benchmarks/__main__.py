"""Runs all benchmarks of speed and writes them as one page.

    python -m benchmarks --quick                                 # the smallest models, minutes
    python -m benchmarks --torch-python=yardstick/bin/python     # two CPU cores, half an hour
    python -m benchmarks --accelerator --dtype=bfloat16 --out=results/benchmarks_gpu

Training steps and inference of every registered model that fits, what was taken out of networks
against the whole, input, and the PyTorch yardstick. Each result is kept as JSON in the folder --out
(page: the same name with .md) as soon as it is there; what a commit has a result of is not run
again, so an interrupted suite goes on. Each process can be run by hand: the JSON has its command.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.suite import page, plan, run
from benchmarks.suite.store import Store


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; 1 if a process had no result, 2 on bad input."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--only", metavar="PARTS", default=",".join(plan.PARTS), help="with commas, of %(default)s")
    scale = parser.add_mutually_exclusive_group()
    scale.add_argument("--quick", action="store_true", help="the smallest models, two rounds")
    scale.add_argument("--accelerator", action="store_true", help="batches for a GPU or TPU")
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="(%(default)s)")
    add("--rounds", type=int, help="timed steps of each model (4; quick: 2)")
    add("--limit", type=float, help="seconds for each model of a process (75; quick: 200)")
    add("--torch-python", metavar="PATH", help="the Python of an environment with PyTorch")
    add("--out", type=Path, help="folder (results/benchmarks; quick: runs/benchmarks_quick)")
    add("--again", action="store_true", help="run what this commit has a result of too")
    parser.add_argument("--page", action="store_true", help="write the page from the JSON alone")
    options = parser.parse_args(given)
    parts = tuple(options.only.split(","))
    if unknown := [part for part in parts if part not in plan.PARTS]:
        parser.exit(2, f"error: no part {unknown[0]!r}; there are {', '.join(plan.PARTS)}\n")
    rounds = options.rounds or (2 if options.quick else 4)
    limit = (200.0 if options.quick else 75.0) if options.limit is None else options.limit
    if rounds < 1 or limit <= 0:
        parser.exit(2, "error: --rounds and --limit must be above 0\n")
    folder = options.out or Path("runs/benchmarks_quick" if options.quick else "results/benchmarks")
    if options.torch_python and not Path(options.torch_python).exists():
        parser.exit(2, f"error: there is no {options.torch_python}\n")

    failed, store = 0, Store(folder)
    try:
        if not options.page:
            wanted = plan.Scale(options.quick, options.accelerator, rounds, options.dtype)
            failed = run.run(
                plan.jobs(wanted, parts),
                store,
                run.this_run(_command(given)),
                limit=limit,
                again=options.again,
                torch_python=options.torch_python,
            )
    finally:  # Ctrl-C too: what there is can be read
        folder.mkdir(parents=True, exist_ok=True)
        file = folder.with_suffix(".md")
        file.write_text(page.write(store))
        print(file)
    return 1 if failed else 0


def _command(given: Sequence[str]) -> str:
    """The command line for the page; where somebody's PyTorch is says nothing to others."""
    words = ["--torch-python=PATH" if w.startswith("--torch-python=") else w for w in given]
    return shlex.join(["python", "-m", "benchmarks", *words])


if __name__ == "__main__":
    sys.exit(main())

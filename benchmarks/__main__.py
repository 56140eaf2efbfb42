"""Runs all benchmarks of speed and writes them as one page.

    python -m benchmarks --quick                                 # the smallest models, minutes
    python -m benchmarks --torch-python=yardstick/bin/python     # two CPU cores, an hour
    python -m benchmarks --accelerator --dtype=bfloat16 --out=results/benchmarks_gpu

Training steps and inference of every registered model that fits, what was taken out of networks
against the whole, input, and (part "torch") networks that take turns with the same in PyTorch. Each
result is kept as JSON in the folder --out (page: the same name with .md) as soon as it is there;
what has a result of this commit on this machine is not run again, so an interrupted suite goes on,
and what failed is tried again. A folder is of one machine. Each process can be run by hand: the
JSON has its command.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.suite import page, plan, run
from benchmarks.suite.store import Store

_TORCH = "python -m venv yardstick && yardstick/bin/pip install torch==2.13.0"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; 1 while a process has no result, 2 on bad input."""
    parser = _parser()
    options = parser.parse_args(arguments)
    everything = plan.PARTS if options.torch_python else [p for p in plan.PARTS if p != "torch"]
    parts = tuple(options.only.split(",") if options.only else everything)
    if unknown := [part for part in parts if part not in plan.PARTS]:
        parser.exit(2, f"error: no part {unknown[0]!r}; there are {', '.join(plan.PARTS)}\n")
    if options.torch_python is not None:  # processes of the suite run in the checkout
        options.torch_python = str(Path(options.torch_python).absolute())
    if "torch" in parts and not options.torch_python:
        parser.exit(2, f"error: the part torch needs --torch-python=PATH; to have one: {_TORCH}\n")
    rounds = (2 if options.quick else 4) if options.rounds is None else options.rounds
    if rounds < 1 or options.limit <= 0:
        parser.exit(2, "error: --rounds and --limit must be above 0\n")
    folder = options.out or Path("runs/benchmarks_quick" if options.quick else "results/benchmarks")
    store = Store(folder)
    if options.page:
        _write(store)
        return 0
    try:
        of_run = run.this_run(_command(parser, options), options.torch_python)
    except RuntimeError as error:
        parser.exit(2, f"error: {error}\n")
    if other := run.elsewhere(store, of_run):
        parser.exit(2, f"error: {folder} is of another machine ({other}); name another --out\n")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    wanted = plan.Scale(options.quick, options.accelerator, rounds, options.dtype)
    try:
        failed = run.run(
            plan.jobs(wanted, parts),
            store,
            of_run,
            limit=options.limit,
            again=options.again,
            torch_python=options.torch_python,
        )
    finally:  # interrupted too: what there is can be read
        _write(store)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--only", metavar="PARTS", help=f"with commas, of {','.join(plan.PARTS)}")
    scale = parser.add_mutually_exclusive_group()
    scale.add_argument("--quick", action="store_true", help="the smallest models, two rounds")
    scale.add_argument("--accelerator", action="store_true", help="batches for a GPU or TPU")
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="(%(default)s)")
    add("--rounds", type=int, help="timed steps of each model (4; quick: 2)")
    add(
        "--limit",
        type=float,
        default=200.0,
        help="seconds for each model of a process; one with several has so many times as long "
        "(%(default)g)",
    )
    add("--torch-python", metavar="PATH", help="of an environment with it, for the part torch")
    add("--out", type=Path, help="folder (results/benchmarks; quick: runs/benchmarks_quick)")
    add("--again", action="store_true", help="run what has a result too")
    parser.add_argument("--page", action="store_true", help="write the page from the JSON alone")
    return parser


def _write(store: Store) -> None:
    store.folder.mkdir(parents=True, exist_ok=True)
    file = store.folder.with_suffix(".md")
    file.write_text(page.write(store))
    print(file)


def _command(parser: argparse.ArgumentParser, options: argparse.Namespace) -> str:
    """The command line for the page, without places of this machine."""
    words = ["python", "-m", "benchmarks"]
    given = vars(options) | ({"torch_python": "PATH"} if options.torch_python else {})
    if options.out and options.out.is_absolute():
        given["out"] = options.out.name
    for name, value in given.items():
        if value != parser.get_default(name):
            word = f"--{name.replace('_', '-')}"
            words.append(word if value is True else f"{word}={value}")
    return shlex.join(words)


if __name__ == "__main__":
    sys.exit(main())

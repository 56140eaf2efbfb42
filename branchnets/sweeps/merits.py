"""Figures of one finished run that take passes over its data, written to its merits.json.

python -m branchnets.sweeps.merits runs/sweep/mu=1,seed=0

A process of its own: the sweep itself never holds an accelerator.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from branchnets.engine.records.rundir import RunDir
from branchnets.engine.runs import load_run
from branchnets.errors import UserError
from branchnets.storage import AnyPath
from branchnets.sweeps.results import MERITS


def write(folder: str | AnyPath) -> AnyPath:
    """Computes ``family.merits`` of a run and writes {"step": ..., "merits": {name: number}}.

    Raises:
      UserError: no run there, or one that cannot be read.
    """
    run = load_run(folder)
    found = {name: float(value) for name, value in run.family.merits(run.subject()).items()}
    return RunDir(folder).write_json(MERITS, {"step": run.step, "merits": found})


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    folders = list(sys.argv[1:] if argv is None else argv)
    if len(folders) != 1:
        print("error: give one run directory", file=sys.stderr)
        return 2
    try:
        print(f"wrote {write(folders[0])}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

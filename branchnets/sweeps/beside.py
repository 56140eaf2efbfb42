"""Finished runs to compare a run with: what is found in folders that a person names."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from branchnets.engine import config as configs
from branchnets.errors import UserError
from branchnets.families.study import FinishedRun
from branchnets.storage import AnyPath, as_path
from branchnets.sweeps import results

#: How far below a named folder runs are looked for: SWEEP/CELL, or STUDY/SWEEP/CELL.
DEPTH = 3


def gather(folders: Iterable[str | AnyPath], flag: str = "--beside") -> tuple[FinishedRun, ...]:
    """The finished runs in folders, each once, also where there is a copy of it.

    Args:
      folders: runs, or folders that hold some.
      flag: named in messages.

    Raises:
      UserError: a folder without any, or a run whose files are damaged.
    """
    found: dict[AnyPath, FinishedRun] = {}
    for folder in map(as_path, folders):
        runs = list(_runs(folder, DEPTH))
        done = [run for run in runs if results.finished(run)]
        if not done:
            raise UserError(f"{flag}={folder}: {_nothing(folder, runs)}")
        found |= {run.resolve(): _load(run) for run in done}
    different: dict[str, FinishedRun] = {}
    for run in found.values():
        different.setdefault(json.dumps([run.config, run.figures], sort_keys=True), run)
    return tuple(different.values())


def _runs(folder: AnyPath, depth: int) -> Iterator[AnyPath]:
    """The run directories in a folder, itself included, in the order of their names."""
    if _is_run(folder):
        yield folder
    elif depth > 0 and folder.is_dir():
        inside: list[AnyPath] = list(folder.iterdir())
        for inner in sorted(inside, key=lambda path: path.name):
            if inner.is_dir() and not inner.name.startswith("."):
                yield from _runs(inner, depth - 1)


def _is_run(folder: AnyPath) -> bool:
    try:
        return "raw" in json.loads((folder / "config.json").read_text())
    except (OSError, ValueError, TypeError):
        return False


def _nothing(folder: AnyPath, runs: list[AnyPath]) -> str:
    if not folder.is_dir():
        return "there is no such folder; name a run directory, or a folder that holds runs."
    if not runs:
        return (
            "it is no run directory, and none lies up to "
            f"{DEPTH} levels below it; name a folder that main or tools.sweep wrote runs to."
        )
    known = ", ".join(run.name for run in runs[:3]) + (", ..." if len(runs) > 3 else "")
    return (
        f"none of its runs ({known}) is finished: summary.json is missing. Give the command that "
        "began them again to finish them, or name others."
    )


def _load(folder: AnyPath) -> FinishedRun:
    try:
        config, figures = results.load(folder)
        return FinishedRun(folder.resolve().name, configs.flatten(config), figures)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder}: its config.json or summary.json is damaged ({error}); mend it or leave "
            "the run out."
        ) from error

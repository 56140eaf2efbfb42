"""Runs the suite's processes one after another, each with a limit of time."""

from __future__ import annotations

import datetime
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import branchnets
from benchmarks import timing
from benchmarks.suite import machine
from benchmarks.suite.machine import ROOT
from benchmarks.suite.plan import PARTS, Job
from benchmarks.suite.store import Record, Store
from branchnets.engine.records import environment

#: Timings of compilation must not find what was compiled before.
_CACHES = ("JAX_COMPILATION_CACHE_DIR",)


def this_run(command: str, torch_python: str | None = None) -> dict[str, Any]:
    """What the records of this run of the suite say of it.

    Raises:
      RuntimeError: JAX, or PyTorch in the environment that was named for it, does not start.
    """
    commit = environment.commit(Path(branchnets.__file__)).get("commit")
    code = ["git", "-C", str(ROOT), "status", "--porcelain", "--", "branchnets", "benchmarks"]
    changed = subprocess.run(code, capture_output=True, text=True, check=False).stdout.strip()
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    found = machine.describe()
    if torch_python is not None:
        found["torch"] = machine.torch_version(torch_python)
    return {
        "commit": commit, "dirty": bool(changed), "date": date, "command": command,
        "machine": found,
    }  # fmt: skip


def wanted(job: Job, record: Record | None, run: dict[str, Any], again: bool) -> bool:
    """Whether a job is to be run: not where this code has its result on this machine already."""
    if record is None or record.reason is not None or again or run["dirty"] or record.run["dirty"]:
        return True
    before = record.run["commit"], _machine(record.run, job), record.command
    return before != (run["commit"], _machine(run, job), shown(job))


def elsewhere(store: Store, run: dict[str, Any]) -> str | None:
    """The machine that a folder's results are of, where it is not this one."""
    for record in store.all(PARTS):
        there = {name: record.run["machine"].get(name) for name in machine.PLACE}
        if there != {name: run["machine"].get(name) for name in machine.PLACE}:
            return machine.text(record.run["machine"])
    return None


def _machine(run: dict[str, Any], job: Job) -> dict[str, Any]:
    """What a job's result depends on."""
    return {k: v for k, v in run["machine"].items() if k != "torch" or job.part == "torch"}


def shown(job: Job) -> str:
    """The command of a job, to be run by hand."""
    words = [*job.arguments, *["--torch-python=PATH"] * (job.part == "torch")]
    return f"python -m benchmarks.{job.module} {shlex.join(words)}"


def run(
    jobs: Iterable[Job],
    store: Store,
    of_run: dict[str, Any],
    *,
    limit: float,
    again: bool = False,
    torch_python: str | None = None,
) -> int:
    """Runs what is wanted and keeps what comes of it; returns how many processes had no result.

    Args:
      jobs: in order.
      store: where results are kept.
      of_run: this run, as :func:`this_run` has it.
      limit: seconds for each model of a process.
      again: what has a result already is run too.
      torch_python: the interpreter of an environment with PyTorch, for the jobs that need it.
    """
    failed = 0
    for job in jobs:
        if not wanted(job, store.read(job.part).get(job.name), of_run, again):
            continue
        time_limit = limit * job.models
        timing.say(f"{job.part}: {job.name} (at most {time_limit:g} s) ...")
        extra = [f"--torch-python={torch_python}"] * (job.part == "torch")
        record = _one(job, extra, of_run, time_limit)
        timing.say(f"  {record.reason or 'done'} ({record.seconds:.0f} s)")
        store.write(record)
        failed += record.reason is not None
    return failed


def _one(job: Job, extra: list[str], of_run: dict[str, Any], limit: float) -> Record:
    load, start = os.getloadavg()[0], time.monotonic()
    reason, document = None, {}
    try:
        status, out, error = finish(
            [sys.executable, "-m", f"benchmarks.{job.module}", *job.arguments, *extra], limit
        )
        if status:
            reason = timing.why_ended(status, error)
        else:
            document = json.loads(out)
    except subprocess.TimeoutExpired:
        reason = f"not done in {limit:g} s"
    except (OSError, ValueError) as error:
        reason = str(error)
    seconds = round(time.monotonic() - start, 1)
    return Record(job.part, job.name, of_run, shown(job), load, seconds, reason, document)


def finish(command: list[str], limit: float) -> tuple[int, str, str]:
    """(status, output, errors) of a command; with what it started, it is killed when time is up."""
    kept = {name: value for name, value in os.environ.items() if name not in _CACHES}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=ROOT, env=kept, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as process:
        try:
            out, error = process.communicate(timeout=limit)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return process.returncode, out, error

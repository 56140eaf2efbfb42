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
from benchmarks.suite.plan import Job
from benchmarks.suite.store import Record, Store
from branchnets.engine.records import environment

ROOT = Path(__file__).resolve().parents[2]
#: Timings of compilation must not find what was compiled before.
_CACHES = ("JAX_COMPILATION_CACHE_DIR",)


def this_run(command: str) -> dict[str, Any]:
    """What the records of this run of the suite say of it."""
    commit = environment.commit(Path(branchnets.__file__)).get("commit")
    code = ["git", "-C", str(ROOT), "status", "--porcelain", "--", "branchnets", "benchmarks"]
    changed = subprocess.run(code, capture_output=True, text=True, check=False).stdout.strip()
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {"commit": commit, "dirty": bool(changed), "date": date, "command": command}


def wanted(job: Job, record: Record | None, run: dict[str, Any], again: bool) -> bool:
    """Whether a job is to be run: not where this very code has its result already."""
    if record is None or again or run["dirty"] or record.run["dirty"]:
        return True
    return record.run["commit"] != run["commit"] or record.command != shown(job)


def shown(job: Job) -> str:
    """The command of a job, to be run by hand."""
    return f"python -m benchmarks.{job.module} {shlex.join(job.arguments)}"


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
      jobs: in order; those of the yardstick are left out without an interpreter for them.
      store: where results are kept.
      of_run: this run, as :func:`this_run` has it.
      limit: seconds for each model of a process.
      again: what has a result of this commit is run too.
      torch_python: the interpreter of an environment with PyTorch.
    """
    failed = 0
    for job in jobs:
        python = torch_python if job.part == "torch" else sys.executable
        if python is None or not wanted(job, store.read(job.part).get(job.name), of_run, again):
            continue
        timing.say(f"{job.part}: {job.name} ...")
        record = _one(job, python, of_run, limit * job.models)
        timing.say(f"  {record.reason or 'done'} ({record.seconds:.0f} s)")
        store.write(record)
        failed += record.reason is not None
    return failed


def _one(job: Job, python: str, of_run: dict[str, Any], limit: float) -> Record:
    load, start = os.getloadavg()[0], time.monotonic()
    reason, document = None, {}
    try:
        status, out, error = finish(
            [python, "-m", f"benchmarks.{job.module}", *job.arguments], limit
        )
        if status:
            reason = _reason(error, status)
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


def _reason(error: str, status: int) -> str:
    if status in (-9, 137):
        return "killed, probably for lack of memory"
    lines = [line for line in error.splitlines() if line.strip()]
    return lines[-1].split("error: ")[-1][:300] if lines else f"exit status {status}"

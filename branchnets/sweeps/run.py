"""Running the cells of a sweep, each a process of its own: one that dies takes no other along."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from branchnets.engine import config as configs
from branchnets.engine.records.progress import duration
from branchnets.engine.records.rundir import RunDir
from branchnets.engine.stopping import INTERRUPTED, PREEMPTED, StopRequest
from branchnets.errors import RunDirError, StorageError
from branchnets.storage import AnyPath
from branchnets.sweeps import results
from branchnets.sweeps.grid import Cell

_TAIL = 15  # lines of a log that are shown when a cell fails
LOGS = "logs"
CACHE = ".cache"  # may be deleted


@dataclasses.dataclass(frozen=True)
class Stage:
    """One process of a cell.

    Attributes:
      name: shown.
      command: the process.
      done: whether there is nothing left to do; asked before and after.
    """

    name: str
    command: tuple[str, ...]
    done: Callable[[], bool]


def stages(cell: Cell, runs: AnyPath, merits: bool) -> tuple[Stage, ...]:
    """Training, then the family's figures of the finished run.

    Args:
      cell: what to run.
      runs: where the run directories are.
      merits: whether the family has such figures.
    """
    folder = runs / cell.name
    python = (sys.executable, "-m")
    training = (*python, "branchnets.main", *cell.arguments, f"--workdir={folder}")
    found = [Stage("training", training, lambda: results.finished(folder))]
    if merits:
        command = (*python, "branchnets.sweeps.merits", str(folder))
        found.append(Stage("merits", command, lambda: results.has_merits(folder)))
    return tuple(found)


def check(cells: Sequence[Cell], runs: AnyPath) -> None:
    """Refuses, before anything runs, a directory that holds a run of another config.

    Raises:
      RunDirError: which, and in which fields.
    """
    for cell in cells:
        run_dir = RunDir(runs / cell.name, write=False)
        if run_dir.exists and (changed := configs.diff(run_dir.config(), cell.config)):
            raise RunDirError(
                f"{run_dir.path} holds a run with another config:\n  "
                + "\n  ".join(changed)
                + "\nNothing was run. Give another folder, or the settings of that sweep."
            )


def check_left(cells: Sequence[Cell], out: Path, runs: AnyPath) -> None:
    """Refuses, before anything runs, to train once more elsewhere what lies beside the report.

    Raises:
      RunDirError: which runs.
    """

    def there(folder: AnyPath) -> bool:
        return RunDir(folder, write=False).exists

    left = [c.name for c in cells if there(out / c.name) and not there(runs / c.name)]
    if left:
        known = ", ".join(left[:3]) + (", ..." if len(left) > 3 else "")
        raise RunDirError(
            f"{out} holds runs that would be trained again in {runs}: {known}.\n"
            "Nothing was run. Copy them there, leave --runs out, or give another --out."
        )


@dataclasses.dataclass
class Outcome:
    """How a sweep ended.

    Attributes:
      failed: names of cells that did not get through.
      status: the exit status to stop with, or None when every cell was tried.
    """

    failed: list[str] = dataclasses.field(default_factory=list)
    status: int | None = None


class Runner:
    """Runs cells, some at once; a request to stop is passed on to them, and they save.

    Args:
      out: where the logs go.
      plan: makes the stages of a cell.
      jobs: cells at once.
      say: prints one line.
    """

    def __init__(
        self,
        out: Path,
        plan: Callable[[Cell], Sequence[Stage]],
        jobs: int = 1,
        say: Callable[[str], None] = lambda line: print(line, flush=True),
    ):
        self.out, self.plan, self.jobs, self.say = out, plan, jobs, say
        self._outcome = Outcome()
        self._lock = threading.Lock()
        self._children: set[subprocess.Popen[bytes]] = set()
        self._count = self._total = 0
        self._seconds: list[float] = []

    def __call__(self, cells: Sequence[Cell]) -> Outcome:
        """Runs what is not done yet."""
        self._total = len(cells)
        (self.out / LOGS).mkdir(parents=True, exist_ok=True)
        with StopRequest() as stop, concurrent.futures.ThreadPoolExecutor(self.jobs) as pool:
            waiting = {pool.submit(self._cell, cell) for cell in cells}
            try:
                while waiting:
                    done, waiting = concurrent.futures.wait(waiting, timeout=0.2)
                    for future in done:
                        future.result()
                    if stop.status is not None:
                        self._stop(stop.status)
            except BaseException as error:  # a second Ctrl-C, or a fault of our own
                self._stop(INTERRUPTED)
                self._signal(signal.SIGKILL)
                if not isinstance(error, KeyboardInterrupt):
                    raise
        return self._outcome

    def _stop(self, status: int) -> None:
        with self._lock:
            if self._outcome.status is not None:
                return
            self._outcome.status = status
        self._signal(signal.SIGINT if status == INTERRUPTED else signal.SIGTERM)

    def _signal(self, number: int) -> None:
        with self._lock:
            for child in self._children:
                child.send_signal(number)

    def _cell(self, cell: Cell) -> None:
        with self._lock:
            self._count += 1
            title = f"[{self._count}/{self._total}] {cell.name}"
        try:
            self._stages(cell, title)
        except StorageError as error:  # whether a stage is done cannot be found out
            with self._lock:
                self._outcome.failed.append(cell.name)
            self.say(f"{title}: FAILED; the others go on. {error}")

    def _stages(self, cell: Cell, title: str) -> None:
        todo = [stage for stage in self.plan(cell) if not stage.done()]
        started = time.monotonic()
        for stage in todo:
            if self._outcome.status is not None:
                return
            self.say(f"{title}: {stage.name} ... (log: {self._log(cell)})")
            status = self._process(stage, cell)
            if status in (PREEMPTED, INTERRUPTED):
                self._stop(status)
            if self._outcome.status is not None:
                return
            if status or not stage.done():
                self._failure(cell, title, stage, status)
                return
        if not todo:
            self.say(f"{title}: done before")
            return
        self._seconds.append(time.monotonic() - started)
        left = (self._total - self._count) * sum(self._seconds) / len(self._seconds) / self.jobs
        rest = f"; at most {duration(left)} more" if self._count < self._total else ""
        self.say(f"{title}: done in {duration(self._seconds[-1])}{rest}")

    def _process(self, stage: Stage, cell: Cell) -> int:
        with self._log(cell).open("ab") as log:
            with self._lock:
                if self._outcome.status is not None:
                    return self._outcome.status
                # In a session of its own: Ctrl-C at the terminal reaches it through us, once.
                child = subprocess.Popen(
                    stage.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._environment(),
                    start_new_session=True,
                )
                self._children.add(child)
            try:
                return child.wait()
            finally:
                with self._lock:
                    self._children.discard(child)

    def _environment(self) -> dict[str, str]:
        environment = dict(os.environ)
        # What cells compile alike, above all those of other seeds, is compiled once. Not shared by
        # machines: compiled code may use instructions that another one lacks.
        cache = self.out.absolute() / CACHE / socket.gethostname()
        environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
        environment.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
        if self.jobs > 1:  # on a GPU the first process would take nearly all memory
            share = f"{0.9 / self.jobs:.2f}"
            environment.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", share)
        return environment

    def _failure(self, cell: Cell, title: str, stage: Stage, status: int) -> None:
        with self._lock:
            self._outcome.failed.append(cell.name)
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
        lines = self._log(cell).read_text(errors="replace").splitlines()[-_TAIL:]
        text = "\n".join(f"    {line}" for line in lines)
        self.say(f"{title}: {stage.name} FAILED with {how}; the others go on.\n{text}")

    def _log(self, cell: Cell) -> Path:
        return self.out / LOGS / f"{cell.name}.txt"

"""A trace of some steps of a run (`--config.profile=START:STOP`), for benchmarks/PROFILING.md."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from branchnets.engine.config.stretch import parse
from branchnets.storage import AnyPath, as_path

#: The compiled step as text, beside the trace: it says which module an operation belongs to.
PROGRAM = "step.hlo.txt"
#: What the host is doing, in the trace's thread of the trainer.
STEP, INPUT = "train", "input"


def input_part() -> contextlib.AbstractContextManager[None]:
    """What the host spends inside on input has a name in the trace."""
    return jax.profiler.TraceAnnotation(INPUT)


class Profile:
    """Traces the steps START to STOP - 1, counted from 0, of a training run.

    What the devices were given before START is waited for first, and what they were given up to
    STOP before the trace ends; what the loop does between those steps (looks, evaluations, saves)
    is in it. A trace holds one compiled step, so it ends where a phase with another one begins.

    Args:
      asked: the config's ``profile``.
      folder: where the trace goes, local or a URL; each of several processes has a folder inside.
      begin: the step that the run goes on from.
      end: the run's number of steps.
      drain: waits for everything that the devices were given.
      say: shows a message.

    Raises:
      ConfigError: as :func:`branchnets.engine.config.stretch.parse`.
    """

    def __init__(
        self,
        asked: str | None,
        folder: AnyPath,
        *,
        begin: int,
        end: int,
        drain: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        self._steps = range(0)
        self._drain, self._say = drain, say
        self._folder = as_path(folder)
        if jax.process_count() > 1:
            self._folder /= f"process{jax.process_index()}"
        self._traced: range = range(0)
        self._step: Any = None  # the compiled one that is being traced
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if (wanted := parse(asked)) is not None:
            self._steps = range(max(wanted[0], begin), min(wanted[1], end))
            if self._steps != range(*wanted):
                what = f"only {_name(self._steps)} will" if self._steps else "nothing will"
                say(f"profile={asked}: steps {begin} to {end} are run, so {what} be traced.")

    def step(self, number: int, compiled: Any) -> contextlib.AbstractContextManager[None]:
        """Inside, the host hands the devices a step.

        Args:
          number: steps done before.
          compiled: what the step calls, with ``as_text``.
        """
        if self._temporary is not None and compiled is not self._step:
            self._say("the trace ends where the phase does: a later one has another step")
            self._steps = range(0)
            self.close()
        if number not in self._steps:
            return contextlib.nullcontext()
        return self._annotated(number, compiled)

    @contextlib.contextmanager
    def _annotated(self, number: int, compiled: Any) -> Iterator[None]:
        if self._temporary is None:
            self._start(compiled)
        with jax.profiler.StepTraceAnnotation(STEP, step_num=number):
            yield
        first = self._traced.start if self._traced else number
        self._traced = range(first, number + 1)
        if number + 1 == self._steps.stop:
            self.close()

    def _start(self, compiled: Any) -> None:
        self._step = compiled
        self._temporary = tempfile.TemporaryDirectory(prefix="branchnets-profile-")
        self._drain()
        # Without every call of Python: they are many, they slow the host, and none is our model's.
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0
        jax.profiler.start_trace(self._temporary.name, profiler_options=options)

    def close(self) -> None:
        """Ends a trace that has begun and writes what it holds; the run may end in between."""
        if self._temporary is None:
            return
        temporary, self._temporary = self._temporary, None
        with temporary:
            try:
                self._drain()
            finally:
                jax.profiler.stop_trace()
            (Path(temporary.name) / PROGRAM).write_text(self._step.as_text())
            try:
                _copy(Path(temporary.name), self._folder)
            except OSError as error:  # a full disk: the run itself is well
                self._say(f"the trace cannot be written to {self._folder}: {error}")
                return
        self._say(f"traced {_name(self._traced)} into {self._folder}")


def _copy(source: Path, target: AnyPath) -> None:
    """Copies a tree of files, to a local folder or a URL."""
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        there = target / file.relative_to(source).as_posix()
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(file.read_bytes())


def _name(steps: range) -> str:
    return f"steps {steps.start}:{steps.stop} ({len(steps)})"

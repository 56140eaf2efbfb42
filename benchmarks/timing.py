"""What the benchmarks share: options, timing in turns, and one form of result.

Imports nothing but the standard library, so that a benchmark of another framework can use it in
an environment of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

#: ``processor`` counts the processor seconds of all threads: steadier than wall time where other
#: work shares the machine.
CLOCKS: dict[str, Callable[[], float]] = {
    "wall": time.perf_counter,
    "processor": time.process_time,
}

#: Environment variable that lets another process say when each round begins: it reads
#: :data:`READY` on stderr and writes a line to stdin.
PACED = "BRANCHNETS_BENCHMARK_PACED"
READY = "ready for a round"


@dataclass(frozen=True)
class Result:
    """The figures of one model.

    Attributes:
      median_s: median time of a step, seconds.
      examples_per_s: batch size over that.
      compile_s: seconds spent compiling the step; None where nothing is compiled.
      peak_bytes: most memory that a step needs; how that is found is the benchmark's to say.
      macs: multiply-adds of a forward pass of one example; None where nobody counted.
    """

    median_s: float
    examples_per_s: float
    compile_s: float | None
    peak_bytes: int | None
    macs: int | None = None


@dataclass(frozen=True)
class Ratio:
    """Of the times of two models that took turns: the median of the rounds' ratios, their range."""

    median: float
    least: float
    most: float

    def text(self) -> str:
        """For a table."""
        return f"{self.median:.3f} ({self.least:.3f}–{self.most:.3f})"


def ratio(times: Sequence[float], others: Sequence[float]) -> Ratio:
    """Of one model's seconds to another's, round by round."""
    found = [own / other for own, other in zip(times, others, strict=True)]
    return Ratio(statistics.median(found), min(found), max(found))


def parser(prog: str, description: str) -> argparse.ArgumentParser:
    """The options that every step benchmark takes."""
    options = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{prog}", description=description, allow_abbrev=False
    )
    options.add_argument("models", nargs="+", metavar="MODEL", help="registered model names")
    options.add_argument(
        "--batch", type=_positive, default=32, help="examples a step (%(default)s)"
    )
    options.add_argument("--size", type=_positive, help="side of the images; default: usual one")
    options.add_argument("--classes", type=_positive, help="default: each model's own")
    options.add_argument(
        "--rounds", type=_positive, default=7, help="timed steps of each model (%(default)s)"
    )
    options.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="(%(default)s)")
    options.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    return options


def add_dtype(options: argparse.ArgumentParser) -> None:
    """The option of what networks compute in."""
    options.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="(%(default)s)"
    )


def common_size(shapes: Mapping[str, tuple[int, int, int]], size: int | None) -> tuple[int, int]:
    """(H, W) that all models are given: `size`, or their usual one if they agree on it.

    Raises:
      ValueError: they do not agree; ratios between different inputs would mean nothing.
    """
    if size is not None:
        return size, size
    usual = {name: shape[:2] for name, shape in shapes.items()}
    if len(set(usual.values())) > 1:
        listed = ", ".join(f"{name} {height}x{width}" for name, (height, width) in usual.items())
        raise ValueError(f"the models' usual images differ in size ({listed}); give --size")
    height, width = next(iter(usual.values()))
    return height, width


def in_turn(
    steps: Mapping[str, Callable[[], Any]],
    rounds: int,
    warmup: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of every timed step; the models take turns, so that a slow spell hits all of them.

    Args:
      steps: name -> a function that runs one step and returns when it is done.
      rounds: timed steps of each.
      warmup: steps of each that are not timed, just before the first round.
      clock: one of :data:`CLOCKS`.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(-warmup, rounds):
        if os.environ.get(PACED):
            say(READY)
            sys.stdin.readline()
        for name, step in steps.items():
            start = clock()
            step()
            seconds = clock() - start
            say(f"{'warm-up' if turn < 0 else f'round {turn + 1}'}: {name} {seconds:.4g} s")
            if turn >= 0:
                times[name].append(seconds)
    return times


def result(
    times: Sequence[float],
    batch: int,
    compile_s: float | None,
    peak_bytes: int | None,
    macs: int | None = None,
) -> Result:
    """The figures of one model from the seconds of its steps."""
    median = statistics.median(times)
    return Result(median, batch / median, compile_s, peak_bytes, macs)


def show(
    results: Mapping[str, Result], setup: Mapping[str, Any], as_json: bool, times: Mapping[str, Any]
) -> None:
    """Prints a table of medians and of ratios to the first model, or one JSON document.

    Args:
      results: in the order of the command line.
      setup: what the figures depend on, such as the batch size and the framework's version.
      as_json: the document is {"models": {name: figures}, "setup": ...} instead.
      times: name -> seconds of every step, for the spread.
    """
    setup = {**setup, "cores": cores(), "python": platform.python_version()}
    if as_json:
        document = {
            "models": {
                name: {**asdict(figures), "times_s": list(times[name])}
                for name, figures in results.items()
            },
            "setup": setup,
        }
        print(json.dumps(document, indent=2))
        return
    print(", ".join(f"{key} {value}" for key, value in setup.items()))
    rows = [("model", "median s", "min-max s", "examples/s", "compile s", "peak GB", "ratio")]
    first = next(iter(results.values())).median_s
    for name, figures in results.items():
        rows.append(
            (
                name,
                f"{figures.median_s:.4f}",
                f"{min(times[name]):.4f}-{max(times[name]):.4f}",
                f"{figures.examples_per_s:.1f}",
                "-" if figures.compile_s is None else f"{figures.compile_s:.1f}",
                "-" if figures.peak_bytes is None else f"{figures.peak_bytes / 1e9:.3f}",
                f"{figures.median_s / first:.3f}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        padded = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        print("  ".join([name.ljust(widths[0]), *padded]))


def cores() -> int | None:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def why_ended(status: int, error: str) -> str:
    """Why a process failed, from its exit status and what it wrote to stderr."""
    if status in (-9, 137):
        return "killed, probably for lack of memory"
    if status < 0:  # what it said last is of before
        return f"ended by {signal.Signals(-status).name}"
    lines = [line for line in error.splitlines() if line.strip()]
    return lines[-1].split("error: ")[-1][:300] if lines else f"exit status {status}"


def say(text: str) -> None:
    """Progress goes to stderr: stdout is for the result."""
    print(text, file=sys.stderr, flush=True)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive whole number, not {text!r}")
    return int(text)

"""The same networks in branchnets and in PyTorch, which take turns in one run.

    python -m venv yardstick && yardstick/bin/pip install torch==2.13.0
    python -m benchmarks.beside_torch resnext29_10x11d coded_resnext29_10x11d_cifar10 \\
        --batch=32 --rounds=9 --torch-python=yardstick/bin/python

Whole training steps, or with --inference forward passes. Runs benchmarks.train_step (or inference)
and benchmarks.torch_yardstick as two processes, of which one works while the other waits: round by
round, so that a slow spell of the machine hits both. Prints the medians, and the median of the
rounds' ratios PyTorch / branchnets: above 1, branchnets is faster. The environment
(`GLIBC_TUNABLES`, for instance) is the same for both. --json prints branchnets' own document with
PyTorch's in "torch" and the ratios in "compared".
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from benchmarks import timing

# Of the other modules' options, those that both have.
_SHARED = ("batch", "size", "classes", "rounds", "clock", "dtype")


class Side:
    """One of the two processes, which goes on when it is told to.

    Args:
      label: before what it says.
      python: the interpreter.
      words: of its command line.
      variables: of its environment, beside this process's.

    Raises:
      OSError: it cannot be started.
      RuntimeError: it ended before its first round.
    """

    def __init__(self, label: str, python: str, words: Sequence[str], **variables: str) -> None:
        self._label, self._said = label, ""
        self._out = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [python, *words],
            stdin=subprocess.PIPE,
            stdout=self._out,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **variables, timing.PACED: "1"},
        )
        try:
            self.waits = self._go_on()
        except BaseException:
            self.stop()
            raise

    def _go_on(self) -> bool:
        """Reads what it says until it waits for its turn; False when it has ended instead."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            text = line.rstrip()
            if text == timing.READY:
                return True
            timing.say(f"{self._label}: {text}")
            self._said += line
        if code := self._process.wait():
            raise RuntimeError(f"{self._label}: {timing.why_ended(code, self._said)}")
        return False

    def go(self) -> None:
        """One round of all its models, after which it waits, or has ended if that was the last."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died while it waited: what follows says why
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        self.waits = self._go_on()

    def document(self) -> dict[str, Any]:
        """What it printed; after its end.

        Raises:
          RuntimeError: that is no JSON.
        """
        self._out.seek(0)
        try:
            found: dict[str, Any] = json.load(self._out)
        except ValueError as error:
            raise RuntimeError(f"{self._label} printed no result: {error}") from error
        return found

    def stop(self) -> None:
        """Ends it, if it has not ended."""
        # Closes the pipes too, of which one may hold what it was told and did not hear.
        with contextlib.suppress(BrokenPipeError), self._out, self._process:
            self._process.kill()


def take_turns(*sides: Side) -> None:
    """Lets the sides run, a round each, until all have ended."""
    while waiting := [side for side in sides if side.waits]:
        for side in waiting:
            side.go()


def compare(ours: dict[str, Any], torch: dict[str, Any]) -> dict[str, Any]:
    """Joins the documents of both sides.

    Returns:
      branchnets' document, with PyTorch's in "torch" and, in "compared", model -> the median and
      range of the rounds' ratios of PyTorch's time to branchnets'.
    """
    compared = {
        name: timing.ratio(torch["models"][name]["times_s"], figures["times_s"])
        for name, figures in ours["models"].items()
    }
    plain = {name: dataclasses.asdict(ratio) for name, ratio in compared.items()}
    return {**ours, "torch": torch, "compared": plain}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    options = timing.parser("beside_torch", (__doc__ or "").splitlines()[0])
    timing.add_dtype(options)
    options.add_argument("--torch-python", required=True, help="Python that has PyTorch")
    options.add_argument("--inference", action="store_true", help="forward passes in evaluation")
    options.add_argument("--gpu", action="store_true", help="PyTorch on its GPU, compiled")
    arguments = options.parse_args(argv)
    given = [
        f"--{name}={value}" for name in _SHARED if (value := getattr(arguments, name)) is not None
    ]
    words = [*arguments.models, *given, "--json"]
    theirs = ["--inference"] * arguments.inference
    theirs += ["--device=cuda", "--compile"] * arguments.gpu
    module = "benchmarks.inference" if arguments.inference else "benchmarks.train_step"
    sides: list[Side] = []
    try:
        # One after the other: compiling is timed too.
        yardstick = ["-m", "benchmarks.torch_yardstick", *words, *theirs]
        sides.append(Side("PyTorch", arguments.torch_python, yardstick))
        # Both are on the same GPU: none may take all of its memory at once.
        share = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        sides.append(Side("branchnets", sys.executable, ["-m", module, *words], **share))
        take_turns(*sides)
        torch, ours = (side.document() for side in sides)
    except (OSError, RuntimeError) as error:
        options.error(str(error))
    finally:
        for side in sides:
            side.stop()
    document = compare(ours, torch)
    if arguments.json:
        print(json.dumps(document, indent=2))
        return
    print(f"{'model':36}{'branchnets s':>14}{'PyTorch s':>11}{'PyTorch / branchnets':>26}")
    for name, figures in ours["models"].items():
        ratio = timing.Ratio(**document["compared"][name])
        own, other = figures["median_s"], torch["models"][name]["median_s"]
        print(f"{name:36}{own:14.4f}{other:11.4f}{ratio.text():>26}")


if __name__ == "__main__":
    main()

"""Training steps of the same networks in branchnets and in PyTorch, which take turns in one run.

    python -m venv yardstick && yardstick/bin/pip install torch==2.13.0
    python -m benchmarks.beside_torch resnext29_10x11d coded_resnext29_10x11d_cifar10 \\
        --batch=32 --rounds=9 --torch-python=yardstick/bin/python

Runs benchmarks.train_step and benchmarks.torch_yardstick as two processes, of which one works while
the other waits: round by round, so that a slow spell of the machine hits both. Prints the medians,
and the median of the rounds' ratios PyTorch / branchnets: above 1, branchnets is faster. The
environment (`GLIBC_TUNABLES`, for instance) is the same for both.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence

from benchmarks import timing

_TIMED = re.compile(r"round \d+: (\S+) ([\d.]+) s$")
# Of the other modules' options, those that both have.
_SHARED = ("batch", "size", "classes", "rounds", "clock")


class Side:
    """One of the two processes, which goes on when it is told to."""

    def __init__(self, command: Sequence[str]) -> None:
        self.times: dict[str, list[float]] = {}
        self._command = list(command)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, timing.PACED: "1"},
        )

    def wait(self) -> bool:
        """Reads what it says until it waits for its turn; False when it has ended instead."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            text = line.rstrip()
            if text == timing.READY:
                return True
            timing.say(text)
            if match := _TIMED.match(text):
                self.times.setdefault(match[1], []).append(float(match[2]))
        if code := self._process.wait():
            raise RuntimeError(f"{' '.join(self._command)} ended with {code}")
        return False

    def go(self) -> bool:
        """One round of all its models; False when that was the last."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self.wait()

    def stop(self) -> None:
        """Ends it, if it has not ended."""
        self._process.kill()
        self._process.wait()


def take_turns(*sides: Side) -> None:
    """Lets the sides run, a round each, until all have ended."""
    waiting = [side for side in sides if side.wait()]
    while waiting:
        waiting = [side for side in waiting if side.go()]


def compare(ours: Sequence[float], torch: Sequence[float]) -> dict[str, float]:
    """Medians in seconds, the median of the rounds' ratios torch / ours, and its range."""
    ratios = [theirs / own for own, theirs in zip(ours, torch, strict=True)]
    return {
        "branchnets_s": statistics.median(ours),
        "torch_s": statistics.median(torch),
        "torch_per_branchnets": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    options = timing.parser("beside_torch", (__doc__ or "").splitlines()[0])
    options.add_argument("--torch-python", required=True, help="Python that has PyTorch")
    arguments = options.parse_args(argv)
    given = [
        f"--{name}={value}" for name in _SHARED if (value := getattr(arguments, name)) is not None
    ]
    words = [*arguments.models, *given, "--json"]
    sides: list[Side] = []
    try:
        sides.append(Side([arguments.torch_python, "-m", "benchmarks.torch_yardstick", *words]))
        sides.append(Side([sys.executable, "-m", "benchmarks.train_step", *words]))
        take_turns(*sides)
    except (OSError, RuntimeError) as error:
        options.error(str(error))
    finally:
        for side in sides:
            side.stop()
    torch, ours = (side.times for side in sides)
    results = {name: compare(ours[name], torch[name]) for name in arguments.models}
    if arguments.json:
        print(json.dumps({"models": results, "times_s": {"branchnets": ours, "torch": torch}}))
        return
    print(f"{'model':36}{'branchnets s':>14}{'PyTorch s':>11}{'PyTorch / branchnets':>22}")
    for name, row in results.items():
        spread = f"{row['torch_per_branchnets']:.2f} ({row['least']:.2f}-{row['most']:.2f})"
        print(f"{name:36}{row['branchnets_s']:14.3f}{row['torch_s']:11.3f}{spread:>22}")


if __name__ == "__main__":
    main()

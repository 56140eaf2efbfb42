"""Times whole training steps of the same networks in plain PyTorch, on the CPU.

    python -m venv yardstick && yardstick/bin/pip install torch==2.13.0
    yardstick/bin/python -m benchmarks.torch_yardstick \\
        resnext29_10x11d coded_resnext29_10x11d_cifar10 --batch=32

A step is forward, losses, backward and the update, in float32 and channels_last, on one synthetic
batch. Needs neither JAX nor branchnets. The peak is the growth of the resident memory of a
process of its own that takes two steps.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable

import torch
from torch.nn import functional

from benchmarks import timing
from benchmarks.torch_models import SHAPES, Network


def make_step(name: str, batch: int, size: int, classes: int | None) -> Callable[[], float]:
    """A function that takes one training step and returns the loss."""
    torch.manual_seed(0)
    shape = SHAPES[name]
    classes = shape.num_classes if classes is None else classes
    network = Network(shape, classes).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    images = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)
    labels = torch.randint(classes, (batch,))

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        logits, coding = network(images, labels)
        loss = functional.cross_entropy(logits, labels) + shape.mu * coding
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def measure_peak(name: str, batch: int, size: int, classes: int | None) -> int:
    """Bytes that the resident memory of a fresh process grows by while it takes two steps."""
    arguments = json.dumps([name, batch, size, classes])
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.torch_yardstick", "--peak-of", arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    return int(run.stdout)


def _print_peak(arguments: str) -> None:
    before = _high_water()
    step = make_step(*json.loads(arguments))
    step()
    step()
    print(_high_water() - before)


def _high_water() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
    options = timing.parser("torch_yardstick", __doc__.splitlines()[0])
    options.add_argument("--threads", type=int, help="PyTorch's threads; default: its own choice")
    arguments = options.parse_args(argv)
    if unknown := [name for name in arguments.models if name not in SHAPES]:
        options.error(f"unknown model {unknown[0]!r}; known: {', '.join(SHAPES)}")
    usual = {name: (SHAPES[name].size, SHAPES[name].size, 3) for name in arguments.models}
    try:
        size, _ = timing.common_size(usual, arguments.size)
    except ValueError as error:
        options.error(str(error))
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)

    numbers = (arguments.batch, size, arguments.classes)
    peaks = {name: measure_peak(name, *numbers) for name in usual}
    steps = {name: make_step(name, *numbers) for name in usual}
    times = timing.in_turn(steps, arguments.rounds, clock=timing.CLOCKS[arguments.clock])
    results = {
        name: timing.result(times[name], arguments.batch, None, peaks[name]) for name in usual
    }
    setup = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "batch": arguments.batch,
        "size": size,
        "rounds": arguments.rounds,
        "dtype": "float32",
        "clock": arguments.clock,
    }
    timing.show(results, setup, arguments.json, times)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak-of"]:
        _print_peak(sys.argv[2])
    else:
        main()

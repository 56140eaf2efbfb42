"""Times training steps, or forward passes, of the same networks in plain PyTorch.

    python -m venv yardstick && yardstick/bin/pip install torch==2.13.0
    yardstick/bin/python -m benchmarks.torch_yardstick \\
        resnext29_10x11d coded_resnext29_10x11d_cifar10 --batch=32

A step is forward, losses, backward and the update, in channels_last, on one synthetic batch; with
--inference the forward pass in evaluation. Needs neither JAX nor branchnets. The peak is the growth
of the resident memory of a process of its own that takes two steps; on a GPU what PyTorch's
allocator held at most there.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import subprocess
import sys
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks import timing
from benchmarks.torch_models import SHAPES, Network


@dataclasses.dataclass(frozen=True)
class Form:
    """What is timed of a network.

    Attributes:
      batch: examples.
      size: side of the images.
      classes: K; None is the network's own number.
      inference: the forward pass in evaluation, not a training step.
      device: "cpu" or "cuda".
      dtype: "float32", or "bfloat16" where PyTorch's autocast takes it.
      compiled: whether torch.compile is asked.
    """

    batch: int
    size: int
    classes: int | None = None
    inference: bool = False
    device: str = "cpu"
    dtype: str = "float32"
    compiled: bool = False

    def compile(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The function, compiled and under autocast if asked."""

        def cast(*arguments: Tensor) -> Tensor:
            with torch.autocast(self.device, torch.bfloat16, enabled=self.dtype == "bfloat16"):
                return function(*arguments)

        return torch.compile(cast) if self.compiled else cast


def make_step(name: str, form: Form) -> Callable[[], float]:
    """A function that does it once, waits, and returns the loss, or the first logit."""
    torch.manual_seed(0)
    shape = SHAPES[name]
    classes = shape.num_classes if form.classes is None else form.classes
    network = Network(shape, classes).to(form.device, memory_format=torch.channels_last)
    images = torch.randn(form.batch, 3, form.size, form.size)
    images = images.to(form.device, memory_format=torch.channels_last)
    if form.inference:
        logits = form.compile(network.eval().logits)

        @torch.inference_mode()
        def forward() -> float:
            return logits(images)[0, 0].item()

        return forward

    network.train()
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    labels = torch.randint(classes, (form.batch,)).to(form.device)

    def loss_of(images: Tensor, labels: Tensor) -> Tensor:
        logits, coding = network(images, labels)
        return functional.cross_entropy(logits, labels) + shape.mu * coding

    loss_function = form.compile(loss_of)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_function(images, labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def measure_peak(name: str, form: Form) -> int:
    """Bytes that the memory of a fresh process grows by while it takes two steps."""
    arguments = json.dumps([name, dataclasses.asdict(form)])
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.torch_yardstick", "--peak-of", arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    return int(run.stdout)


def _print_peak(arguments: str) -> None:
    name, fields = json.loads(arguments)
    form = Form(**fields)
    before = _high_water()
    step = make_step(name, form)
    step()
    step()
    on_gpu = form.device == "cuda"
    print(torch.cuda.max_memory_allocated() if on_gpu else _high_water() - before)


def _high_water() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
    options = timing.parser("torch_yardstick", __doc__.splitlines()[0])
    options.add_argument("--inference", action="store_true", help="the forward pass alone")
    options.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(%(default)s)")
    timing.add_dtype(options)
    options.add_argument("--compile", action="store_true", help="with torch.compile")
    options.add_argument("--threads", type=int, help="PyTorch's threads; default: its own choice")
    arguments = options.parse_args(argv)
    if unknown := [name for name in arguments.models if name not in SHAPES]:
        options.error(f"unknown model {unknown[0]!r}; known: {', '.join(SHAPES)}")
    usual = {name: (SHAPES[name].size, SHAPES[name].size, 3) for name in arguments.models}
    try:
        size, _ = timing.common_size(usual, arguments.size)
    except ValueError as error:
        options.error(str(error))
    if arguments.device == "cuda" and not torch.cuda.is_available():
        options.error("this PyTorch finds no GPU")
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)

    form = Form(
        arguments.batch, size, arguments.classes, arguments.inference,
        arguments.device, arguments.dtype, arguments.compile,
    )  # fmt: skip
    peaks = {name: measure_peak(name, form) for name in usual}
    steps = {name: make_step(name, form) for name in usual}
    times = timing.in_turn(steps, arguments.rounds, clock=timing.CLOCKS[arguments.clock])
    results = {
        name: timing.result(times[name], arguments.batch, None, peaks[name]) for name in usual
    }
    on_gpu = form.device == "cuda"
    setup = {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "threads": torch.get_num_threads(),
        "batch": arguments.batch,
        "size": size,
        "rounds": arguments.rounds,
        "dtype": arguments.dtype,
        "compiled": form.compiled,
        "clock": arguments.clock,
    }
    timing.show(results, setup, arguments.json, times)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak-of"]:
        _print_peak(sys.argv[2])
    else:
        main()

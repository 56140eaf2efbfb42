"""Times every way to lower the grouped layers of the three networks of Coded ResNeXt's Table 1,
and of the 1x1 layers of MaskConnect, in which every branch has a kernel of its own.

    python -m benchmarks.conv_lowerings [--json] [--network=c10] [--rounds=7] [--clock=processor]

One forward and backward pass (result and both gradients, float32) of each distinct grouped layer,
every candidate in turn within each round. Prints the chosen form, the best one, and the ratio of
their times; the goal is that no ratio is above 1.2. `--clock=processor` counts the processor
seconds of all threads instead of wall time: steadier where other work shares the machine.

The direct form ("grouped") is left out on CPU unless `--direct` is given: it takes seconds. Of
1x1 layers the candidates are matrix products: dot:P is one for P branches.
"""

from __future__ import annotations

import argparse
import json
import platform as host
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
from jax import Array

from branchnets.engine import compiler
from branchnets.engine.mesh import make_mesh
from branchnets.nn.conv import choose_lowering, grouped_conv


@dataclass(frozen=True)
class Layer:
    """A grouped layer: `branches` of `width` channels each on `size` x `size` images.

    3x3 and as wide behind as before, unless `features` (of one branch) says that it is 1x1.
    """

    batch: int
    branches: int
    width: int
    size: int
    stride: int = 1
    features: int | None = None

    @property
    def name(self) -> str:
        if self.features is not None:
            return f"{self.branches}x({self.width}->{self.features}) {self.size}x{self.size}"
        return (
            f"{self.branches}x{self.width}d {self.size}x{self.size}"
            f"{' stride 2' if self.stride == 2 else ''}"
        )

    @property
    def x_shape(self) -> tuple[int, int, int, int]:
        return self.batch, self.size, self.size, self.branches * self.width

    @property
    def kernel_shape(self) -> tuple[int, int, int, int]:
        if self.features is not None:
            return 1, 1, self.width, self.branches * self.features
        return 3, 3, self.width, self.branches * self.width

    def operands(self) -> tuple[Array, Array, Array]:
        keys = jax.random.split(jax.random.key(0), 3)
        out = (self.size - 1) // self.stride + 1
        x = jax.random.normal(keys[0], self.x_shape)
        kernel = 0.1 * jax.random.normal(keys[1], self.kernel_shape)
        dy = jax.random.normal(keys[2], (self.batch, out, out, self.kernel_shape[3]))
        return x, kernel, dy


def _stages(batch: int, branches: int, *layers: tuple[int, int, int]) -> list[Layer]:
    return [Layer(batch, branches, *layer) for layer in layers]


def _pointwise(batch: int, branches: int, *layers: tuple[int, int, int]) -> list[Layer]:
    """Into a branch's bottleneck and out of it: (channels, width, size) of each stage."""
    return [
        Layer(batch, branches, width, size, features=features)
        for channels, inner, size in layers
        for width, features in ((channels, inner), (inner, channels))
    ]


# Widths, sizes and strides of Table 1; of MaskConnect's {20,4,8}, {29,8,8}
# and {50,4,32} (at 160x160).
NETWORKS = {
    "c10": _stages(32, 10, (11, 32, 1), (22, 32, 2), (22, 16, 1), (44, 16, 2), (44, 8, 1)),
    "c100": _stages(32, 20, (6, 32, 1), (12, 32, 2), (12, 16, 1), (24, 16, 2), (24, 8, 1)),
    "imagenet": _stages(
        8, 32, (4, 40, 1), (8, 40, 2), (8, 20, 1), (16, 20, 2), (16, 10, 1), (32, 10, 2), (32, 5, 1)
    ),
    "w4_c8": _pointwise(32, 8, (64, 4, 32), (128, 8, 16), (256, 16, 8)),
    "w8_c8": _pointwise(32, 8, (64, 8, 32), (128, 16, 16), (256, 32, 8)),
    "w4_c32": _pointwise(1, 32, (256, 4, 40), (512, 8, 20), (1024, 16, 10), (2048, 32, 5)),
}


def candidates(layer: Layer, chosen: str, direct: bool) -> list[str]:
    """Every form worth timing: packs that are powers of two, mixed ones, the dense form."""
    if layer.features is not None:
        names = [f"dot:{p}" for p in (1, 2, 4, 8, 16, 32) if p <= layer.branches]
        names += ["grouped"] * direct
        return names if chosen in names else [chosen, *names]
    packs = [p for p in (1, 2, 4, 8, 16) if p < layer.branches and p * layer.width <= 96]
    names = [f"packed:{p}" for p in packs]
    names += [f"packed:{p},{q}" for q, p in zip(packs, packs[1:], strict=False)]
    names += ["dense"] + ["grouped"] * direct
    return names if chosen in names else [chosen, *names]


def compile_pass(layer: Layer, lowering: str) -> Callable[[], object]:
    """The compiled forward and backward pass, bound to its operands and run once."""

    def both(x: Array, kernel: Array, dy: Array) -> tuple[Array, ...]:
        y, vjp = jax.vjp(
            lambda a, b: grouped_conv(
                a, b, groups=layer.branches, stride=layer.stride, lowering=lowering
            ),
            x,
            kernel,
        )
        return y, *vjp(dy)

    operands = layer.operands()
    # As the training step is compiled.
    chosen = compiler.options(make_mesh(jax.devices()[:1]))
    compiled = jax.jit(both, compiler_options=chosen).lower(*operands).compile()
    jax.block_until_ready(compiled(*operands))
    return lambda: jax.block_until_ready(compiled(*operands))


def measure(layer: Layer, rounds: int, direct: bool, clock: Callable[[], float]) -> dict:
    """Median and smallest seconds of every candidate, and how the chosen one compares."""
    backend = jax.default_backend()
    chosen = choose_lowering(
        "cuda" if backend == "gpu" else backend,
        layer.x_shape,
        layer.kernel_shape,
        layer.branches,
        layer.stride,
    )
    direct = direct or backend != "cpu"
    passes = {name: compile_pass(layer, name) for name in candidates(layer, chosen, direct)}
    times: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(rounds):
        for name, run in passes.items():
            start = clock()
            run()
            times[name].append(clock() - start)
    median = {name: statistics.median(t) for name, t in times.items()}
    best = min(median, key=median.__getitem__)
    return {
        "layer": layer.name,
        "batch": layer.batch,
        "chosen": chosen,
        "best": best,
        "ratio": median[chosen] / median[best],
        "median_s": median,
        "min_s": {name: min(t) for name, t in times.items()},
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conv_lowerings")
    parser.add_argument("--network", choices=sorted(NETWORKS), help="only this network's layers")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clock", choices=("wall", "processor"), default="wall")
    parser.add_argument("--direct", action="store_true", help="time the direct form on CPU too")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    args = parser.parse_args(arguments)
    clock = time.perf_counter if args.clock == "wall" else time.process_time
    results: dict[str, list[dict]] = {}
    for network, layers in NETWORKS.items():
        if args.network not in (None, network):
            continue
        results[network] = []
        for layer in layers:
            row = measure(layer, args.rounds, args.direct, clock)
            results[network].append(row)
            line = (
                f"{network:9}{row['layer']:24}chosen {row['chosen']:12}"
                f"{1e3 * row['median_s'][row['chosen']]:8.1f} ms   best {row['best']:12}"
                f"{1e3 * row['median_s'][row['best']]:8.1f} ms   ratio {row['ratio']:.2f}"
            )
            print(line, file=sys.stderr if args.json else sys.stdout, flush=True)
    if args.json:
        device = jax.devices()[0]
        about = {
            "jax": jax.__version__,
            "python": host.python_version(),
            "device": device.device_kind,
            "platform": device.platform,
            "clock": args.clock,
            "rounds": args.rounds,
        }
        print(json.dumps({"environment": about, "networks": results}, indent=1))


if __name__ == "__main__":
    main()

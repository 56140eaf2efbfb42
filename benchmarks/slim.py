"""Times a binary classifier taken out of a coded network against the full network.

    python -m benchmarks.slim [MODEL] [--batch=1 --batch=32] [--rounds=15] [--clock=processor]

Forward passes in evaluation, jitted, on one device, with random weights: full and extracted take
turns, so that a slow spell hits both. Beside each ratio of times stands that of multiply-adds.
`--clock=processor` counts the processor seconds of all threads instead of wall time, which is
steadier where other work shares the machine.
Goal for coded_resnext29_10x11d_cifar10, batch 32, two CPU cores: 0.72 of the full network's time.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import timing
from branchnets import registry
from branchnets.counting import count_parameters, describe
from branchnets.families.coded import slim
from branchnets.families.coded.family import block_schemes
from branchnets.families.coded.model import CodedResNeXt
from branchnets.families.coded.zoo import BUILDERS
from branchnets.latency import compile_forward

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
DEFAULT = "coded_resnext29_10x11d_cifar10"


def networks(name: str, k: int) -> dict[str, tuple[CodedResNeXt, Any]]:
    """ "full" and "slim": module and variables of a registered network and its class k."""
    entry = registry.entry(name)
    if name not in BUILDERS:
        raise ValueError(f"{name} is no coded network; those are {', '.join(BUILDERS)}")
    if not 0 <= k < entry.num_classes:
        raise ValueError(f"--class is 0 to {entry.num_classes - 1}, not {k}")
    model: Any = registry.create_model(name)
    images = jnp.zeros((1, *entry.image_shape))
    variables = jax.jit(model.init)(jax.random.key(0), images)
    keep = slim.keep_of(block_schemes(model, BUILDERS[name].active, entry.num_classes), [k])
    small = slim.slim_variables(model, variables, keep, [k])
    return {"full": (model, variables), "slim": (slim.slim_model(model, keep, [k]), small)}


def measure(
    name: str,
    k: int,
    batches: Sequence[int],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Parameters, multiply-adds, and milliseconds for every batch size, with their ratios."""
    shape = registry.entry(name).image_shape
    nets = networks(name, k)
    macs = {n: describe(model, shape).macs for n, (model, _) in nets.items()}
    layers = {n: slim.layer_macs(model, shape) for n, (model, _) in nets.items()}
    parameters = {n: count_parameters(variables) for n, (_, variables) in nets.items()}
    rows = []
    for batch in batches:
        steps = {n: compile_forward(*net, shape, batch) for n, net in nets.items()}
        times = timing.in_turn(steps, rounds, clock=clock)
        # Of each pair of neighbouring passes: what slows the machine slows both.
        pairs = [s / f for f, s in zip(times["full"], times["slim"], strict=True)]
        rows.append(
            {
                "batch": batch,
                "full_ms": 1e3 * statistics.median(times["full"]),
                "slim_ms": 1e3 * statistics.median(times["slim"]),
                "ratio": statistics.median(pairs),
                "ratio_of_smallest": min(times["slim"]) / min(times["full"]),
            }
        )
    return {
        "model": name,
        "class": k,
        "parameters": parameters,
        "macs": macs,
        "macs_ratio": macs["slim"] / macs["full"],
        "layer_macs_ratio": layers["slim"] / layers["full"],
        "times": rows,
    }


def show(found: dict[str, Any]) -> None:
    """Prints a table."""
    parameters = found["parameters"]
    print(
        f"{found['model']}, class {found['class']}: parameters {parameters['slim']:,} of "
        f"{parameters['full']:,} ({parameters['slim'] / parameters['full']:.3f})"
    )
    print(f"{'batch':>5} {'full ms':>10} {'slim ms':>10} {'time':>7} {'smallest':>9} {'MACs':>7}")
    for row in found["times"]:
        print(
            f"{row['batch']:>5} {row['full_ms']:>10.2f} {row['slim_ms']:>10.2f} "
            f"{row['ratio']:>7.3f} {row['ratio_of_smallest']:>9.3f} {found['macs_ratio']:>7.3f}"
        )
    print(
        "time: median of slim / full over neighbouring passes; smallest: the same of the fastest "
        f"passes. MACs count the energies; without them {found['layer_macs_ratio']:.3f}."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; exits with status 2 and a message on bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.slim",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", nargs="?", default=DEFAULT, metavar="MODEL")
    parser.add_argument("--batch", type=int, action="append", help="repeatable; default: 1 and 32")
    parser.add_argument("--class", type=int, default=0, dest="k", help="index of the class")
    parser.add_argument("--rounds", type=int, default=15, help="timed passes of each (%(default)s)")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall")
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    options = parser.parse_args(arguments)
    batches = options.batch or [1, 32]
    if min(*batches, options.rounds) < 1:
        parser.exit(2, "error: --batch and --rounds must be at least 1\n")
    try:
        found = measure(options.model, options.k, batches, options.rounds, CLOCKS[options.clock])
    except ValueError as error:
        parser.exit(2, f"error: {error}\n")
    device = jax.devices()[0]
    setup = {
        "clock": options.clock,
        "device": device.device_kind,
        "jax": jax.__version__,
        "python": platform.python_version(),
    }
    if options.json:
        json.dump({**found, "setup": setup}, sys.stdout, indent=2)
        print()
        return
    print(", ".join(f"{name} {value}" for name, value in setup.items()))
    show(found)


if __name__ == "__main__":
    main()

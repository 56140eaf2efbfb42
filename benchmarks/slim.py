"""Times a network that was taken out of another against the full one: its classifier of one class,
or what is left when the branches that nobody reads are gone.

    python -m benchmarks.slim [MODEL] [--batch=1 --batch=32] [--rounds=15] [--clock=processor]
    python -m benchmarks.slim maskconnect29_w8_c8:connectivity=random,fan_in=1
    python -m benchmarks.slim --run=runs/maskconnect_digits

MODEL is NAME[:field=value,...] with random weights, and random masks where its connectivity is
random; --run takes the network of a finished run. Forward passes in evaluation, jitted, on one
device: full and small take turns, so that a slow spell hits both. Beside each ratio of times stands
that of multiply-adds. `--clock=processor` counts the processor seconds of all threads instead of
wall time, which is steadier where other work shares the machine.
Goals on two CPU cores, batch 32: 0.72 of the full network's time for
coded_resnext29_10x11d_cifar10; for a pruned network, the ratio of its multiply-adds plus 15 %.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from benchmarks import timing
from benchmarks.small_networks import take_out
from benchmarks.variants import parse
from branchnets.counting import count_parameters, describe
from branchnets.engine.runs import load_run
from branchnets.errors import UserError
from branchnets.families.base import Family
from branchnets.latency import compile_forward

DEFAULT = "coded_resnext29_10x11d_cifar10"


@dataclass(frozen=True)
class Pair:
    """A network and what was taken out of it.

    Attributes:
      name: of the full one.
      what: was taken out.
      image_shape: (H, W, C).
      family: of both.
      networks: "full" and "slim": module and variables.
    """

    name: str
    what: str
    image_shape: tuple[int, int, int]
    family: Family
    networks: dict[str, tuple[nn.Module, Any]]


def untrained(word: str, k: int) -> Pair:
    """The pair of a registered network with random weights; ``word`` as on the command line."""
    variant = parse(word)
    family, shape = variant.family(), variant.entry.image_shape
    variables = jax.jit(family.model.init)(jax.random.key(0), jnp.zeros((1, *shape)))
    return _pair(word, shape, family, variables, k)


def trained(path: str, checkpoint: str, k: int) -> Pair:
    """The pair of a finished run."""
    run = load_run(path, checkpoint)
    return _pair(run.path.name, run.dataset.spec.image_shape, run.family, run.variables, k)


def _pair(name: str, shape: tuple[int, int, int], family: Family, variables: Any, k: int) -> Pair:
    small = take_out(family, variables, k)
    networks = {"full": (family.model, variables), "slim": (small.model, small.variables)}
    return Pair(name, small.what, shape, family, networks)


def measure(
    pair: Pair,
    batches: Sequence[int],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Parameters, multiply-adds, and milliseconds for every batch size, with their ratios."""
    shape, nets = pair.image_shape, pair.networks
    macs = {n: describe(model, shape).macs for n, (model, _) in nets.items()}
    layers = {n: pair.family.layer_macs(model, shape) for n, (model, _) in nets.items()}
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
        "model": pair.name,
        "taken_out": pair.what,
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
        f"{found['model']}, {found['taken_out']}: parameters {parameters['slim']:,} of "
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
        "passes. MACs count energies and mixing too; convolutions and linear layer alone "
        f"{found['layer_macs_ratio']:.3f}."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; exits with status 2 and a message on bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.slim",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help=f"registered, default: {DEFAULT}")
    parser.add_argument("--run", metavar="DIR", help="a run directory, instead of MODEL")
    parser.add_argument("--checkpoint", default="latest", metavar="STEP", help="of --run")
    parser.add_argument("--batch", type=int, action="append", help="repeatable; default: 1 and 32")
    parser.add_argument(
        "--class",
        type=int,
        default=0,
        dest="k",
        help="of networks with one classifier a class: the index of the class",
    )
    parser.add_argument("--rounds", type=int, default=15, help="timed passes of each (%(default)s)")
    parser.add_argument("--clock", choices=tuple(timing.CLOCKS), default="wall")
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    options = parser.parse_args(arguments)
    batches = options.batch or [1, 32]
    if min(*batches, options.rounds) < 1:
        parser.exit(2, "error: --batch and --rounds must be at least 1\n")
    if options.model and options.run:
        parser.exit(2, "error: give MODEL or --run, not both\n")
    try:
        if options.run:
            pair = trained(options.run, options.checkpoint, options.k)
        else:
            pair = untrained(options.model or DEFAULT, options.k)
        found = measure(pair, batches, options.rounds, timing.CLOCKS[options.clock])
    except (UserError, ValueError) as error:
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

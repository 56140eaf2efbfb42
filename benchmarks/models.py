"""What the benchmarks of registered models share: the command line, one process, models in turn."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

from benchmarks import timing
from benchmarks.variants import Variant, parse
from branchnets import counting, memory
from branchnets.engine import mesh as meshes


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What is timed: `run()` does it once and waits for it."""

    run: Callable[[], None]
    compile_s: float
    peak_bytes: int


@dataclasses.dataclass(frozen=True)
class Case:
    """What is built and compiled.

    Attributes:
      variant: the model.
      image_shape: (H, W, C).
      classes: K; None is the model's usual number.
      batch: examples.
      dtype: "float32" or "bfloat16", what the network computes in.
    """

    variant: Variant
    image_shape: tuple[int, int, int]
    classes: int | None
    batch: int
    dtype: str


def timed_compile(jitted: Any, *arguments: Any) -> tuple[Any, float, int]:
    """(compiled function, seconds of tracing and compiling, bytes that it needs).

    The bytes are what XLA says: arguments, temporaries, code, and outputs of its own.

    Raises:
      ValueError: it needs more memory than there is.
    """
    start = time.perf_counter()
    compiled = jitted.lower(*arguments).compile()
    seconds = time.perf_counter() - start
    sizes = compiled.memory_analysis()
    more = memory.beside_arguments(sizes)  # the arguments have their place already
    found = memory.free(meshes.make_mesh(jax.devices()[:1]))
    free = found.device if found.device is not None else found.host
    if free is not None and more > free:
        raise ValueError(f"needs {more / 1e9:.1f} GB more, and {free / 1e9:.1f} GB are free")
    return compiled, seconds, sizes.argument_size_in_bytes + more


def measure(
    prog: str,
    description: str,
    build: Callable[[Case], Compiled],
    argv: Sequence[str] | None = None,
) -> None:
    """Runs a benchmark's command line: compiles every model, times them in turn, prints."""
    options = timing.parser(prog, description.splitlines()[0])
    timing.add_dtype(options)
    arguments = options.parse_args(argv)
    try:
        variants = {word: parse(word) for word in arguments.models}
        usual = {word: variant.entry.image_shape for word, variant in variants.items()}
        size = timing.common_size(usual, arguments.size)
        shapes = {word: (*size, shape[2]) for word, shape in usual.items()}
        compiled = {}
        for name, variant in variants.items():
            case = Case(variant, shapes[name], arguments.classes, arguments.batch, arguments.dtype)
            compiled[name] = build(case)
            timing.say(f"compiled {name} in {compiled[name].compile_s:.1f} s")
    except ValueError as error:
        options.error(str(error))

    times = timing.in_turn(
        {name: each.run for name, each in compiled.items()},
        arguments.rounds,
        clock=timing.CLOCKS[arguments.clock],
    )
    results = {
        name: timing.result(
            times[name],
            arguments.batch,
            each.compile_s,
            each.peak_bytes,
            counting.describe(variants[name].family().model, shapes[name]).macs,
        )
        for name, each in compiled.items()
    }
    setup = {
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "batch": arguments.batch,
        "size": "x".join(map(str, size)),
        "rounds": arguments.rounds,
        "dtype": arguments.dtype,
        "clock": arguments.clock,
    }
    timing.show(results, setup, arguments.json, times)

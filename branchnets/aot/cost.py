"""A step compiled, and what the compiler says of it."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Mapping
from typing import Any

import jax

from branchnets import memory
from branchnets.aot import collectives as exchanges
from branchnets.aot import hlo, loops, roofline
from branchnets.aot.steps import Step
from branchnets.aot.topologies import Topology
from branchnets.aot.totals import totals
from branchnets.errors import first_line


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a step costs; bytes and FLOPs are those of one device.

    Attributes:
      topology, step: names.
      devices: of the mesh.
      batch_size: examples of a step, on all devices.
      fits: whether each device has the memory.
      parts: what is there while it runs, by name.
      argument_bytes, output_bytes, alias_bytes, temp_bytes, code_bytes: by the compiler; outputs
        that take the place of arguments are in `alias_bytes` too.
      peak_bytes: at once, what waits beside the step included.
      hbm_bytes: memory of a device, as published.
      usable_bytes: what the compiler gives to a program there.
      flops, bytes_accessed: by the compiler, which counts what is inside a loop once.
      total_flops, total_bytes: with what is inside a loop as often as it runs.
      loops: how many the program has.
      unknown_loops: of these, those whose length or cost is not known: they count once in the
        totals too, which are lower bounds then.
      parameter_bytes: of the network.
      compile_seconds: wall time, tracing included.
      compiler_seconds: its own estimate of the step, loops once; None where it gives none.
      total_compiler_seconds: the same, prolonged by the cycles that it expects in loops.
      collectives: as :func:`branchnets.aot.collectives.by_kind` has them.
      exchanges: one by one.
      roofline: an estimate of time from the totals.
      needed_bytes: of a step that does not fit, where the compiler told it.
      reason: likewise, its words.
      largest_batch: of a step that does not fit: the largest batch that does, 0 for none; None
        where it was not looked for.
      smallest_batch: where it was: the smallest that there may be.
    """

    topology: str
    step: str
    devices: int
    batch_size: int
    fits: bool
    parts: dict[str, int]
    hbm_bytes: int
    usable_bytes: int
    parameter_bytes: int
    compile_seconds: float
    argument_bytes: int | None = None
    output_bytes: int | None = None
    alias_bytes: int | None = None
    temp_bytes: int | None = None
    code_bytes: int | None = None
    peak_bytes: int | None = None
    flops: float | None = None
    bytes_accessed: float | None = None
    total_flops: float | None = None
    total_bytes: float | None = None
    loops: int | None = None
    unknown_loops: int | None = None
    compiler_seconds: float | None = None
    total_compiler_seconds: float | None = None
    collectives: list[dict[str, Any]] | None = None
    exchanges: list[exchanges.Collective] = dataclasses.field(default_factory=list)
    roofline: roofline.Roofline | None = None
    needed_bytes: int | None = None
    reason: str = ""
    largest_batch: int | None = None
    smallest_batch: int | None = None

    @property
    def images_per_second(self) -> float | None:
        """Of all devices, by the roofline; None where that is a lower bound of time."""
        known = self.roofline is not None and not self.unknown_loops
        return self.batch_size / self.roofline.step_seconds if known else None  # type: ignore[union-attr]

    def as_dict(self) -> dict[str, Any]:
        """For JSON; the exchanges one by one are left out."""
        found = dataclasses.asdict(dataclasses.replace(self, exchanges=[]))
        del found["exchanges"]
        return {**found, "images_per_second": self.images_per_second}


def cost(step: Step, topology: Topology) -> Cost:
    """Compiles a step for a topology.

    Raises:
      JaxRuntimeError: it does not compile, for another reason than memory.
    """
    began = time.monotonic()
    known: dict[str, Any] = dict(
        topology=topology.name,
        step=step.name,
        devices=len(topology.devices),
        batch_size=step.batch_size,
        parts=step.parts,
        hbm_bytes=topology.hbm_bytes,
        usable_bytes=topology.usable_bytes,
        parameter_bytes=step.parameter_bytes,
    )
    try:
        compiled = step.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        known["compile_seconds"] = round(time.monotonic() - began, 1)
        return Cost(**known, fits=False, needed_bytes=needed(str(error)), reason=reason(str(error)))
    known["compile_seconds"] = round(time.monotonic() - began, 1)
    return _of(compiled, step, topology, known)


def _of(compiled: Any, step: Step, topology: Topology, known: dict[str, Any]) -> Cost:
    sizes, analysis = compiled.memory_analysis(), compiled.cost_analysis()
    estimated = seconds(analysis)
    text = compiled.as_text()
    program = hlo.parse(text)
    runs = loops.runs(program)
    found = exchanges.collectives(program, runs)
    whole = totals(text, program, runs, {**analysis, "optimal_seconds": estimated})
    peak = sizes.argument_size_in_bytes + memory.beside_arguments(sizes) + step.waiting_bytes
    devices = len(topology.devices)
    roof = roofline.estimate(
        topology.chip,
        devices,
        flops=whole.flops,
        bytes_accessed=whole.bytes_accessed,
        model_flops=step.model_flops * step.batch_size / devices,
        collectives=found,
    )
    if whole.unknown_loops:
        roof = dataclasses.replace(roof, mfu=None)
    return Cost(
        **known,
        fits=peak <= topology.usable_bytes,
        argument_bytes=sizes.argument_size_in_bytes,
        output_bytes=sizes.output_size_in_bytes,
        alias_bytes=sizes.alias_size_in_bytes,
        temp_bytes=sizes.temp_size_in_bytes,
        code_bytes=sizes.generated_code_size_in_bytes,
        peak_bytes=peak,
        flops=float(analysis["flops"]),
        bytes_accessed=float(analysis["bytes accessed"]),
        total_flops=whole.flops,
        total_bytes=whole.bytes_accessed,
        loops=len(runs.loops),
        unknown_loops=whole.unknown_loops,
        compiler_seconds=estimated,
        total_compiler_seconds=whole.seconds,
        collectives=exchanges.by_kind(found),
        exchanges=found,
        roofline=roof,
    )


def seconds(analysis: Mapping[str, float]) -> float | None:
    """The compiler's own estimate of a step, of its analysis; None where it gives none.

    Of large steps for v4 it gives a negative number.
    """
    found = analysis.get("optimal_seconds", 0.0)
    return found if found > 0 else None


_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def needed(message: str) -> int | None:
    """The bytes that the compiler says a step uses, of its message that there are too few.

    >>> needed("Ran out of memory in memory space hbm. Used 9.50G of 7.48G hbm. Exceeded ...")
    10200547328
    >>> needed("the total memory required for HLO temporaries (1.5G) exceeds available HBM (1G).")
    1610612736
    """
    match = re.search(r"[Uu]sed ([\d.]+)([KMGT]?)i?B? of [\d.]+[KMGT]?i?B? hbm", message)
    match = match or re.search(r"required for [^(]*\(([\d.]+)([KMGT]?)i?B?\) exceeds", message)
    return round(float(match[1]) * _UNITS[match[2]]) if match else None


def reason(message: str) -> str:
    """The sentence of the compiler's message that says how much is missing."""
    for pattern in (r"[Uu]sed [^\n]* hbm\.[^\n]*", r"total memory required[^\n]*?\)(?=\.|$)"):
        if match := re.search(pattern, message):
            return match[0][:200]
    return first_line(message)[:200]

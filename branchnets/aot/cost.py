"""A step compiled, and what the compiler says of it."""

from __future__ import annotations

import dataclasses
import re
import time
from typing import Any

import jax

from branchnets.aot import collectives as exchanges
from branchnets.aot import hlo, roofline
from branchnets.aot.steps import Step
from branchnets.aot.topologies import Topology


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
      hbm_bytes: memory of a device.
      flops, bytes_accessed: by the compiler, which counts what is inside a loop once.
      loops: how many the program has.
      parameter_bytes: of what has gradients.
      compile_seconds: wall time, tracing included.
      compiler_seconds: its own estimate of the step; None where it gives none.
      collectives: kind, count, operand bytes and how many are in loops.
      exchanges: one by one.
      roofline: an estimate of time. The parts of a batch that is computed in several are counted
        as often as they are, and the update with them, which is a little too much.
      needed_bytes: of a step that does not fit, where the compiler told it.
      reason: likewise, its words.
      largest_batch: of a step that does not fit: the largest batch that does, 0 for none; None
        where it was not looked for.
    """

    topology: str
    step: str
    devices: int
    batch_size: int
    fits: bool
    parts: dict[str, int]
    hbm_bytes: int
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
    loops: int | None = None
    compiler_seconds: float | None = None
    collectives: list[dict[str, Any]] | None = None
    exchanges: list[exchanges.Collective] = dataclasses.field(default_factory=list)
    roofline: roofline.Roofline | None = None
    needed_bytes: int | None = None
    reason: str = ""
    largest_batch: int | None = None

    @property
    def images_per_second(self) -> float | None:
        """Of all devices, by the roofline."""
        return self.batch_size / self.roofline.step_seconds if self.roofline else None

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
        parameter_bytes=step.trained_bytes,
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
    memory, analysis = compiled.memory_analysis(), compiled.cost_analysis()
    program = hlo.parse(compiled.as_text())
    found = exchanges.collectives(program)
    own = memory.output_size_in_bytes - memory.alias_size_in_bytes
    peak = memory.argument_size_in_bytes + max(own, 0) + memory.temp_size_in_bytes
    peak += memory.generated_code_size_in_bytes + step.waiting_bytes
    flops, moved = float(analysis["flops"]), float(analysis["bytes accessed"])
    devices = len(topology.devices)
    return Cost(
        **known,
        fits=peak <= topology.hbm_bytes,
        argument_bytes=memory.argument_size_in_bytes,
        output_bytes=memory.output_size_in_bytes,
        alias_bytes=memory.alias_size_in_bytes,
        temp_bytes=memory.temp_size_in_bytes,
        code_bytes=memory.generated_code_size_in_bytes,
        peak_bytes=peak,
        flops=flops,
        bytes_accessed=moved,
        loops=program.count("while"),
        compiler_seconds=analysis.get("optimal_seconds"),
        collectives=exchanges.by_kind(found),
        exchanges=found,
        roofline=roofline.estimate(
            topology.chip,
            devices,
            flops=flops * step.turns,
            bytes_accessed=moved * step.turns,
            model_flops=step.model_flops * step.batch_size / devices,
            collectives=[one for one in found for _ in range(step.turns if one.in_loop else 1)],
        ),
    )


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
    return message.strip().partition("\n")[0][:200]

"""What a program costs when its loops' bodies count as often as they run."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from branchnets.aot import hlo
from branchnets.aot.loops import Runs


@dataclasses.dataclass(frozen=True)
class Totals:
    """Of one run of the program.

    Attributes:
      flops, bytes_accessed: as XLA counts them.
      seconds: by the compiler's own estimate; None where it gives none.
      unknown_loops: which count once, as their length or their body's cost is not known; the others
        are lower bounds where there are any.
    """

    flops: float
    bytes_accessed: float
    seconds: float | None
    unknown_loops: int


def totals(text: str, program: hlo.Program, runs: Runs, once: dict[str, Any]) -> Totals:
    """Adds what the compiler's figures leave out, which count the body of a loop once.

    FLOPs and bytes of a body are those of XLA's cost analysis, of a module that begins with it. It
    has the FLOPs that the compiler has; of bytes, jaxlib 0.10 leaves out the padding of arrays,
    which the compiler counts, so that the bytes added are too few (jaxlib 0.12 counts it). The
    seconds are prolonged as the cycles are that the compiler expects of each instruction.

    Args:
      text: of the compiled program.
      program: the same, read.
      runs: how often its computations run.
      once: "flops", "bytes accessed" and, where there is one, "optimal_seconds" of the program.
    """
    flops, moved = float(once["flops"]), float(once["bytes accessed"])
    unknown = sum(loop.trips is None for loop in runs.loops)
    for loop in runs.loops:
        if loop.trips is None or loop.trips == 1:
            continue
        try:
            own = _analysis(text, loop.body)
        except (ImportError, AttributeError, TypeError, ValueError, jax.errors.JaxRuntimeError):
            # The reader is no public part of JAX: another version may lack it, or refuse the text.
            unknown += 1
            continue
        more = runs.times[loop.where] * (loop.trips - 1)  # what is around it has it once
        flops, moved = flops + more * own[0], moved + more * own[1]
    return Totals(flops, moved, _seconds(program, runs, once.get("optimal_seconds")), unknown)


def _analysis(text: str, body: str) -> tuple[float, float]:
    """(FLOPs, bytes) of a computation, in which loops count once."""
    from jax._src.lib import _jax
    from jaxlib import _hlo  # type: ignore[attr-defined]

    module = _hlo.hlo_module_from_text(beginning_with(text, body))
    found = _jax.hlo_module_cost_analysis(jax.local_devices(backend="cpu")[0].client, module)
    return found.get("flops", 0.0), found.get("bytes accessed", 0.0)


def beginning_with(text: str, body: str) -> str:
    """The text of a module with one of its computations as its entry.

    Raises:
      ValueError: it has no such computation.
    """
    lines = ["HloModule part, is_scheduled=true"]
    for line in text.splitlines()[1:]:
        line = line.removeprefix("ENTRY ")
        if line.startswith((f"%{body} ", f"{body} ")):
            line = f"ENTRY {line}"
        lines.append(line)
    if not any(line.startswith("ENTRY ") for line in lines):
        raise ValueError(f"there is no computation {body!r}")
    return "\n".join(lines)


def _seconds(program: hlo.Program, runs: Runs, once: float | None) -> float | None:
    if once is None:
        return None
    cycles = {
        name: sum(one.cycles for one in program.computations[name].values()) for name in runs.times
    }
    total = sum(cycles.values())
    return once * sum(runs.times[name] * cycles[name] for name in cycles) / total if total else once

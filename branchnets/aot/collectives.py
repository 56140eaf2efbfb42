"""What devices send each other in one step, by the text of the compiled program."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from branchnets.aot import hlo
from branchnets.aot.loops import Runs

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)


@dataclass(frozen=True)
class Collective:
    """One exchange between devices.

    Attributes:
      kind: of :data:`KINDS`.
      operand_bytes: that a device puts in.
      in_loop: whether it is inside a loop.
      times: that it happens in a step; of a loop of unknown length, as if that ran once.
      op_name: where in the traced function it comes from.
    """

    kind: str
    operand_bytes: int
    in_loop: bool
    op_name: str
    times: int = 1


def kind(instruction: hlo.Instruction) -> str | None:
    """Which of :data:`KINDS` an instruction is; of a pair of start and done, both are one."""
    name = instruction.opcode.removesuffix("-start").removesuffix("-done")
    return name if name in KINDS else None


def collectives(program: hlo.Program, runs: Runs) -> list[Collective]:
    """The collectives of a program; of a pair of start and done, the start alone counts."""
    found = []
    for name, times in runs.times.items():
        computation = program.computations[name]
        for instruction in computation.values():
            which = kind(instruction)
            if which is not None and not instruction.opcode.endswith("-done"):
                size = _operand_bytes(instruction, computation)
                looped = name in runs.inside
                found.append(Collective(which, size, looped, instruction.op_name, times))
    return found


def _operand_bytes(instruction: hlo.Instruction, computation: dict[str, hlo.Instruction]) -> int:
    return sum(
        hlo.nbytes(computation[operand].type)
        for operand in instruction.operands
        if operand in computation
    )


def moved(found: Iterable[Collective], kind: str) -> tuple[int, int]:
    """How often those of a kind happen in a step, and what a device puts in in all, in bytes."""
    own = [one for one in found if one.kind == kind]
    return sum(one.times for one in own), sum(one.times * one.operand_bytes for one in own)


def by_kind(found: Iterable[Collective]) -> list[dict[str, Any]]:
    """What there is of each kind: "count", "operand_bytes", "in_loops", "times", "moved_bytes".

    "count", "operand_bytes" and, of the count, "in_loops" are those of the program's text; "times"
    and "moved_bytes" count what is in a loop as often as it happens.
    """
    found = list(found)
    rows = []
    for kind in KINDS:
        own = [one for one in found if one.kind == kind]
        if own:
            times, moved_bytes = moved(own, kind)
            rows.append(
                {
                    "kind": kind,
                    "count": len(own),
                    "operand_bytes": sum(one.operand_bytes for one in own),
                    "in_loops": sum(one.in_loop for one in own),
                    "times": times,
                    "moved_bytes": moved_bytes,
                }
            )
    return rows

"""How often what is in a compiled program runs: a loop's body as often as the loop turns."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from branchnets.aot import hlo

_BODIES = ("body", "condition")
# They may name the computation that async-start has begun.
_CONTINUED = ("async-update", "async-done")


@dataclass(frozen=True)
class Loop:
    """One loop of a program.

    Attributes:
      where: the computation that it is in.
      body: the computation that it repeats.
      trips: how often, each time that it is reached; None where the program does not tell.
    """

    where: str
    body: str
    trips: int | None


@dataclass(frozen=True)
class Runs:
    """How often each computation runs in one run of the program.

    Attributes:
      times: computation -> number; in a loop of unknown length, as if it ran once.
      inside: computations that are in a loop.
      loops: of the program.
    """

    times: dict[str, int]
    inside: frozenset[str]
    loops: tuple[Loop, ...]


def runs(program: hlo.Program) -> Runs:
    """Counts how often the computations of a program run; of a conditional, each branch."""
    found = _Lengths(program)
    times = {program.entry: 1}
    inside: set[str] = set()
    loops = []
    for name in program.reached():
        for instruction in program.computations[name].values():
            looped = instruction.opcode == "while"
            trips = found.trips(instruction.name, name) if looped else 1
            if looped:
                loops.append(Loop(name, instruction.called["body"][0], trips))
            for callee in _callees(program, instruction):
                more = times[name] * (1 if trips is None else trips)
                times[callee] = times.get(callee, 0) + more
                inside |= {callee} if looped or name in inside else set()
    return Runs(times, frozenset(inside), tuple(loops))


def _callees(program: hlo.Program, instruction: hlo.Instruction) -> list[str]:
    if instruction.opcode in _CONTINUED:
        return []
    called = itertools.chain(*instruction.called.values())
    return [callee for callee in called if callee in program.computations]


class _Lengths:
    """Reads the lengths of a program's loops.

    A loop that JAX writes for a scan counts from a constant, in ones, to a constant; libtpu writes
    no length down, so it is read from the loop's start, body and condition.
    """

    def __init__(self, program: hlo.Program) -> None:
        self._program = program
        self._callers = {
            callee: (name, instruction)
            for name in program.reached()
            for instruction in program.computations[name].values()
            if instruction.opcode == "while"
            for attribute in _BODIES
            for callee in instruction.called[attribute]
        }

    def trips(self, name: str, where: str) -> int | None:
        """How often the body of a loop runs; None where that is not known.

        Args:
          name: of the loop.
          where: the computation that it is in.
        """
        loop = self._program.computations[where][name]
        if loop.trips is not None:
            return loop.trips
        (condition,), (body,) = loop.called["condition"], loop.called["body"]
        if not {condition, body} <= self._program.computations.keys():
            return None
        limit = self._limit(condition)
        if limit is None:
            return None
        place, end = limit
        start, step = self._element(loop, where, place), self._step(body, place)
        if start is None or step is None or step <= 0:
            return None
        return max(-(-(end - start) // step), 0)

    def _limit(self, condition: str) -> tuple[int, int] | None:
        """(place of the counter in the loop's state, what it must stay below)."""
        root = self._root(condition)
        direction = re.search(r"direction=(LT|GT)", root.text)
        if root.opcode != "compare" or direction is None:
            return None
        counter, most = root.operands if direction[1] == "LT" else reversed(root.operands)
        place, end = self._place(counter, condition), self._constant(most, condition)
        return None if place is None or end is None else (place, end)

    def _step(self, body: str, place: int) -> int | None:
        """What the body adds to a place of the loop's state."""
        root = self._root(body)
        if root.opcode != "tuple":
            return None
        new = self._original(root.operands[place], body)
        if new is None or new.opcode != "add":
            return None
        for counter, step in (new.operands, new.operands[::-1]):
            if self._place(counter, body) == place:
                return self._constant(step, body)
        return None

    def _root(self, computation: str) -> hlo.Instruction:
        return next(one for one in self._program.computations[computation].values() if one.root)

    def _original(self, name: str, where: str) -> hlo.Instruction | None:
        """What a value is a copy of."""
        own = self._program.computations[where]
        value = own.get(name)
        while value is not None and value.opcode in ("copy", "bitcast"):
            value = own.get(value.operands[0])
        return value

    def _place(self, name: str, where: str) -> int | None:
        """The place of the state that a value is, in a loop's body or condition."""
        value = self._original(name, where)
        if value is None or value.opcode != "get-tuple-element":
            return None
        source = self._program.computations[where].get(value.operands[0])
        if source is None or source.opcode != "parameter":
            return None
        match = re.search(r"index=(\d+)", value.text)
        return int(match[1]) if match else None

    def _constant(self, name: str, where: str) -> int | None:
        """The integer that a value always is."""
        value = self._original(name, where)
        if value is not None and value.opcode == "constant":
            written = value.operands[0] if value.operands else ""
            return int(written) if re.fullmatch(r"-?\d+", written) else None
        place = self._place(name, where)
        if place is None or where not in self._callers:
            return None
        # A constant may be handed to a loop from outside, where its body hands it on as it is.
        outer, loop = self._callers[where]
        (body,) = loop.called["body"]
        handed = self._root(body)
        if handed.opcode != "tuple" or self._place(handed.operands[place], body) != place:
            return None
        return self._element(loop, outer, place)

    def _element(self, loop: hlo.Instruction, where: str, place: int) -> int | None:
        """The integer that a place of a loop's state begins with."""
        state = self._program.computations[where].get(loop.operands[0])
        if state is None or state.opcode != "tuple":
            return None
        return self._constant(state.operands[place], where)

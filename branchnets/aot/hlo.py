"""What a compiled program says: its instructions, read from XLA's text form."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

_BITS = {"pred": 8, "token": 0, "opaque": 0}
# A type's element: "bf16[8,128]{1,0:T(8,128)(2,1)}"; the layout plays no role here.
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,<= ]*)\]")
_NAME = re.compile(r"%?([\w.\-]+)")
_INSTRUCTION = re.compile(r"\s*(ROOT )?%?([\w.\-]+) = ")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .*)?\{$")
_CALLED = re.compile(
    r"\b(body|condition|calls|to_apply|branch_computations|called_computations|"
    r"true_computation|false_computation)=(\{[^}]*\}|%?[\w.\-]+)"
)
_BRACKET = re.compile(r"[()]")
_OP_NAME = re.compile(r'op_name="((?:[^"\\]|\\.)*)"')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


@dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: unique in its computation.
      type: of the result, as written.
      opcode: "all-reduce-start", "fusion", ...
      operands: names.
      called: attribute -> computations, such as "body" of a loop.
      op_name: where in the traced function it comes from; "" where it is not said.
      text: the attributes, as written, without the compiler's own.
      root: whether it is the result of its computation.
      trips: of a loop, how often its body runs, where the compiler wrote it down.
      cycles: that it takes, by the compiler for a TPU; 0 where it does not say.
    """

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    called: dict[str, tuple[str, ...]]
    op_name: str
    text: str
    root: bool = False
    trips: int | None = None
    cycles: int = 0


@dataclass(frozen=True)
class Program:
    """A module.

    Attributes:
      entry: name of the computation that it begins with.
      computations: name -> instructions, by name.
    """

    entry: str
    computations: dict[str, dict[str, Instruction]]

    def reached(self) -> list[str]:
        """The computations that may run, callers before what they call."""
        found: dict[str, None] = {}

        def visit(name: str) -> None:
            if name in found or name not in self.computations:
                return
            for instruction in self.computations[name].values():
                for callee in itertools.chain(*instruction.called.values()):
                    visit(callee)
            found[name] = None  # after all that it calls

        visit(self.entry)
        return list(reversed(found))


def nbytes(type_text: str) -> int:
    """Bytes of a type as it is written, padding of layouts left out.

    >>> nbytes("(f32[8,2]{1,0:T(8,128)}, bf16[3])"), nbytes("pred[]"), nbytes("s4[3]")
    (70, 1, 2)
    """
    total = 0
    for kind, dimensions in _ARRAY.findall(type_text):
        count = 1
        for size in dimensions.split(","):
            count *= int(re.sub(r"\D", "", size) or 1)
        total += -(-count * _bits(kind) // 8)
    return total


def _bits(kind: str) -> int:
    if kind in _BITS:
        return _BITS[kind]
    width = re.match(r"[a-z]+(\d+)", kind)
    return int(width[1]) if width else 0


def parse(text: str) -> Program:
    """A module from the text of a compiled program (`compiled.as_text()`)."""
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if current is None:
            if (match := _COMPUTATION.match(line)) and not line.startswith("HloModule"):
                current = computations.setdefault(match[2], {})
                entry = match[2] if match[1] else entry
        elif line.startswith("}"):
            current = None
        elif (match := _INSTRUCTION.match(line)) is not None:
            instruction = _instruction(match[2], line[match.end() :], root=bool(match[1]))
            current[instruction.name] = instruction
    return Program(entry, computations)


def _instruction(name: str, rest: str, root: bool) -> Instruction:
    if "/*" in rest:
        rest = re.sub(r"/\*.*?\*/", "", rest)
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.find(" ")
    kind, rest = rest[:end], rest[end:].lstrip()
    opening = rest.find("(")
    closing = _closing(rest, opening)
    operands = _names(rest[opening + 1 : closing])
    text, _, private = rest[closing + 1 :].partition("backend_config=")  # which may be very long
    called = {
        attribute: tuple(_NAME.findall(value.strip("{}")))
        for attribute, value in _CALLED.findall(text)
    }
    origin, trips, cycles = _OP_NAME.search(text), _TRIPS.search(private), _CYCLES.search(private)
    return Instruction(
        *(name, kind, rest[:opening], operands, called, origin[1] if origin else "", text),
        root,
        int(trips[1]) if trips else None,
        int(cycles[1]) if cycles else 0,
    )


def _closing(text: str, opening: int) -> int:
    """Where the bracket that opens at a place closes."""
    depth = 0
    for match in _BRACKET.finditer(text, opening):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return match.start()
    return len(text)


def _names(operands: str) -> tuple[str, ...]:
    """The names among operands, which may be written with their types."""
    if "[" in operands:  # of "f32[8,128]{1,0:T(8,128)} %name" the name alone
        return tuple(re.findall(r"%([\w.\-]+)", operands))
    return tuple(_NAME.findall(operands))

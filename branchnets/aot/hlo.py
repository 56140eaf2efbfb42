"""What a compiled program says: its instructions, read from XLA's text form."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_BITS = {"pred": 8, "token": 0, "opaque": 0}
# A type's element: "bf16[8,128]{1,0:T(8,128)(2,1)}"; the layout plays no role here.
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,<= ]*)\]")
_NAME = re.compile(r"%?([\w.\-]+)")
_INSTRUCTION = re.compile(r"\s*(?:ROOT )?%?([\w.\-]+) = ")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .*)?\{$")
_CALLED = re.compile(
    r"\b(body|condition|calls|to_apply|branch_computations|called_computations|"
    r"true_computation|false_computation)=(\{[^}]*\}|%?[\w.\-]+)"
)
_BRACKET = re.compile(r"[()]")
_OP_NAME = re.compile(r'op_name="([^"]*)"')


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
      text: the attributes, as written.
    """

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    called: dict[str, tuple[str, ...]]
    op_name: str
    text: str


@dataclass(frozen=True)
class Program:
    """A module.

    Attributes:
      entry: name of the computation that it begins with.
      computations: name -> instructions, by name.
    """

    entry: str
    computations: dict[str, dict[str, Instruction]]

    def reached(self) -> Iterator[tuple[str, bool]]:
        """(computation, whether inside a loop) of all that may run, each once."""
        seen: dict[str, bool] = {}
        ahead = [(self.entry, False)]
        while ahead:
            name, looped = ahead.pop()
            if name not in self.computations or seen.get(name) in (True, looped):
                continue
            seen[name] = looped
            for instruction in self.computations[name].values():
                inside = looped or instruction.opcode == "while"
                for callees in instruction.called.values():
                    ahead += [(callee, inside) for callee in callees]
        return iter(seen.items())

    def count(self, opcode: str) -> int:
        """Instructions of an opcode that may run."""
        return sum(
            instruction.opcode == opcode
            for name, _ in self.reached()
            for instruction in self.computations[name].values()
        )


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
            instruction = _instruction(match[1], line[match.end() :])
            current[instruction.name] = instruction
    return Program(entry, computations)


def _instruction(name: str, rest: str) -> Instruction:
    if "/*" in rest:
        rest = re.sub(r"/\*.*?\*/", "", rest)
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.find(" ")
    kind, rest = rest[:end], rest[end:].lstrip()
    opening = rest.find("(")
    closing = _closing(rest, opening)
    operands = _names(rest[opening + 1 : closing])
    text = rest[closing + 1 :].partition("backend_config=")[0]  # which may be very long
    called = {
        attribute: tuple(_NAME.findall(value.strip("{}")))
        for attribute, value in _CALLED.findall(text)
    }
    found = _OP_NAME.search(text)
    return Instruction(
        name, kind, rest[:opening], operands, called, found[1] if found else "", text
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

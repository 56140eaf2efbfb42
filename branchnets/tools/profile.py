"""Says where the time of a traced training run goes, by the modules of its network.

python -m branchnets.main --config=... --workdir=runs/x --config.profile=20:25
python -m branchnets.tools.profile runs/x [--depth=2] [--top=15]

Reads the newest trace of runs/x/profile: how long the operations of every module took, forward and
backward, and which single operations took longest. Of several processes it reads the first one's;
runs/x/profile/process1 is that of another. benchmarks/PROFILING.md says how to read it.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from branchnets.aot import collectives, hlo
from branchnets.engine.profiling import INPUT, PROGRAM, STEP
from branchnets.engine.records.logging import format_table
from branchnets.errors import UserError
from branchnets.storage import AnyPath, RemotePath, as_path
from branchnets.tools.common import Parser

#: Scopes of engine/step.py beside the loss, which holds the network.
_SCOPES = ("input", "update", "check")
#: The row of what devices send each other. It is one operation for many modules, and on CPU devices
#: most of its time is that of waiting for the others.
EXCHANGE = "(exchange)"


@dataclasses.dataclass(frozen=True)
class Program:
    """What the text of a compiled step says.

    Attributes:
      module: its name.
      names: operation -> where it was written, "jit(run)/jvp(loss)/Net/stage2/conv/dot".
      paths: those of the network's modules.
      exchanges: the operations in which devices send each other something.
    """

    module: str
    names: Mapping[str, str]
    paths: frozenset[tuple[str, ...]]
    exchanges: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class Trace:
    """What a trace says of one step, in milliseconds.

    Attributes:
      steps: traced.
      wall: of a step, from the first handed over to the end of the last one's operations.
      input: that the trainer's thread spent on input.
      operations: name -> added up over threads, a mean over devices.
    """

    steps: int
    wall: float
    input: float
    operations: Mapping[str, float]


def read_program(text: str) -> Program:
    """Parses what ``as_text`` of a compiled step gives."""
    computations = hlo.parse(text).computations
    every = [each for held in computations.values() for each in held.values()]
    own = {each.name: each.op_name for each in every if each.op_name}
    exchanges = set()
    for each in every:
        called = each.called.get("calls", ())
        inside = [i for name in called for i in computations.get(name, {}).values()]
        if any(collectives.kind(one) for one in (each, *inside)):
            exchanges.add(each.name)
        # A fusion without a name is called after what it holds most of.
        held = Counter(i.op_name for i in inside if i.op_name)
        if each.name not in own and held:
            own[each.name] = held.most_common(1)[0][0]
    module = re.match(r"HloModule ([\w.\-]+)", text)
    parameters = (re.findall(r"\['(\w+)'\]", n.replace("\\", "")) for n in own.values())
    paths = {tuple(keys[1:i]) for keys in parameters for i in range(2, len(keys))}
    return Program(module[1] if module else "", own, frozenset(paths), frozenset(exchanges))


def part(name: str, paths: frozenset[tuple[str, ...]], depth: int) -> tuple[str, str]:
    """(part of the step, "forward", "backward" or "") that an operation of this name belongs to.

    >>> part("jit(run)/transpose(jvp(loss))/Net/a/b/mul", frozenset({("a",), ("a", "b")}), 2)
    ('a/b', 'backward')
    """
    words = re.sub(r"\bjit\(run\)/", "", name).split("/")
    for scope in _SCOPES:
        if words[0] == scope:
            return scope, ""
    if "loss" not in re.split(r"\W", words[0]):
        return "(no name)", ""
    way = "backward" if words[0].startswith("transpose") else "forward"
    path: tuple[str, ...] = ()
    for word in words[1:]:
        if (*path, word) in paths:
            path += (word,)
    return "/".join(path[:depth]) or "loss", way


def read_trace(data: bytes, module: str) -> Trace:
    """Reads what jax.profiler wrote; raises UserError where no step is in it."""
    from jax.profiler import ProfileData

    planes = [(p.name, [(line.name, line) for line in p.lines])
              for p in ProfileData.from_serialized_xspace(data).planes]  # fmt: skip
    steps: dict[int, float] = {}
    waited, last = 0.0, 0.0
    found: dict[str, Counter[str]] = {}
    for plane, lines in planes:
        for line_name, line in lines:
            for event in line.events:
                if event.name == STEP and (number := dict(event.stats).get("step_num")) is not None:
                    steps[int(number)] = event.start_ns
                elif event.name == INPUT:
                    waited += event.duration_ns
                elif operation := _operation(event, line_name, module):
                    found.setdefault(plane, Counter())[operation] += event.duration_ns
                    last = max(last, event.start_ns + event.duration_ns)
    devices = {n: c for n, c in found.items() if n.startswith("/device:")} or found
    if not steps or not devices:
        raise UserError("the trace holds no training step; trace with --config.profile=START:STOP.")
    total: Counter[str] = sum(devices.values(), Counter())
    scale = 1e-6 / len(steps)
    operations = {name: ns * scale / len(devices) for name, ns in total.items()}
    wall = (last - min(steps.values())) * scale
    return Trace(len(steps), wall, waited * scale, operations)


def _operation(event: Any, line: str, module: str) -> str | None:
    """The operation of the step's program that an event is of."""
    stats = dict(event.stats)
    if stats.get("hlo_module", module) != module:
        return None
    if "hlo_op" in stats:
        return str(stats["hlo_op"])
    if line == "XLA Ops":  # TPUs have the instruction's text as the event's name
        found = re.match(r"%?([\w.\-]+)", event.name)
        return found[1] if found else None
    return None


def by_part(
    trace: Trace, program: Program, depth: int
) -> Iterator[tuple[str, float, float, float]]:
    """(part, forward ms, backward ms, share in percent), the dearest first."""
    times: dict[str, dict[str, float]] = {}
    for operation, ms in trace.operations.items():
        name, way = EXCHANGE, ""
        if operation not in program.exchanges:
            name, way = part(program.names.get(operation, ""), program.paths, depth)
        own = times.setdefault(name, {"": 0.0, "forward": 0.0, "backward": 0.0})
        own[way] += ms
    whole = sum(trace.operations.values())
    for name, own in sorted(times.items(), key=lambda item: -sum(item[1].values())):
        yield name, own["forward"] or own[""], own["backward"], 100 * sum(own.values()) / whole


@dataclasses.dataclass(frozen=True)
class Found:
    """Where a trace is.

    Attributes:
      file: that the profiler wrote.
      folder: that it wrote into, with the program beside it.
      others: the folders of other processes, which have traces too.
    """

    file: AnyPath
    folder: AnyPath
    others: tuple[AnyPath, ...] = ()


def newest(place: str) -> Found:
    """The newest trace of a run, of its first process; raises UserError where there is none."""
    run = as_path(place)
    if not run.is_dir():
        raise UserError(f"there is no folder {place}. Name a run directory, or its profile/.")
    files = run.walk().values() if isinstance(run, RemotePath) else run.rglob("*")
    # .../profile/plugins/profile/DATE/HOST.xplane.pb, and the program in the first of these.
    traces = sorted((f.parent.name, str(f), f) for f in files if f.name.endswith(".xplane.pb"))
    if not traces:
        raise UserError(
            f"{place} holds no trace. Train with --config.profile=START:STOP, for example 20:25, "
            "or name the run directory of a run that did."
        )
    # Of each folder the newest, and of the folders beside the newest that of the first process.
    folders = {_folder(file): file for _, _, file in traces}
    last = _folder(traces[-1][2])
    if _process(last) is None:
        return Found(folders[last], last)
    beside = [f for f in folders if f.parent == last.parent and _process(f) is not None]
    first, *others = sorted(beside, key=lambda folder: _process(folder) or 0)
    return Found(folders[first], first, tuple(others))


def _folder(trace: AnyPath) -> AnyPath:
    return trace.parent.parent.parent.parent


def _process(folder: AnyPath) -> int | None:
    match = re.fullmatch(r"process(\d+)", folder.name)
    return int(match[1]) if match else None


def _origin(name: str) -> str:
    """Of an operation that was made of many, the first of their names alone."""
    first, *others = name.split(":")
    return f"{first} and {len(others)} others" if others else first


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    options = Parser(prog="python -m branchnets.tools.profile", description=__doc__)
    options.add_argument(
        "run", metavar="RUN", help="a run directory, its profile/, or process1/ there"
    )
    options.add_argument("--depth", type=int, default=2, help="of module names (%(default)s)")
    options.add_argument("--top", type=int, default=15, help="single operations (%(default)s)")
    given = options.parse_all(sys.argv[1:] if argv is None else argv)
    try:
        found = newest(given.run)
        program = read_program((found.folder / PROGRAM).read_text())
        trace = read_trace(found.file.read_bytes(), program.module)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    busy = sum(trace.operations.values())
    if _process(found.folder) is not None:
        others = ", ".join(map(str, found.others))
        print(f"Of {found.folder.name} alone{others and f'; the others are in {others}'}.\n")
    print(
        f"{trace.steps} steps, {trace.wall:.1f} ms each; of a step, {busy:.1f} ms of operations "
        f"(added up over threads) and {trace.input:.1f} ms of the trainer's thread on input\n"
    )
    rows = list(by_part(trace, program, given.depth))
    print(format_table(rows, ("part", "forward ms", "backward ms", "%")) + "\n")
    longest = sorted(trace.operations.items(), key=lambda item: -item[1])[: given.top]
    table = [
        (ms, 100 * ms / busy, name, _origin(program.names.get(name, ""))) for name, ms in longest
    ]
    print(format_table(table, ("ms", "%", "operation", "where it comes from")))
    return 0


if __name__ == "__main__":
    sys.exit(main())

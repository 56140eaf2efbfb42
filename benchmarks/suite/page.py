"""The page of the suite's results, written from its JSON alone."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from benchmarks import timing
from benchmarks.peaks import peak, source
from benchmarks.suite import machine
from benchmarks.suite.plan import GROUPS, PARTS, torch_name
from benchmarks.suite.store import Record, Store

#: Operations of a training step and of a forward pass for each multiply-add of a forward pass: the
#: gradients of a layer's input and kernel take as many each as the layer.
_OPERATIONS = {"steps": 6, "inference": 2}
_TITLES = {"steps": "Training steps", "inference": "Inference"}
_NONE = "–"
_HEAD = f"""\
Written by `python -m benchmarks` from the JSON beside it. Every row names its run (last table),
which says the machine, versions and commit. The models of a group took turns in one run, with
PyTorch's where there are some: their ratios are of one stretch of time. “{_NONE}” was not measured.
Times are medians of wall time, with the smallest and the largest; ratios are medians over the
rounds, with theirs."""


class Runs:
    """Letters for the runs of the suite, in the order that they are first asked for."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, dict[str, Any], dict[tuple[str, str], float]]] = {}

    def letter(self, record: Record) -> str:
        """Of the run that a record is of: a, b, ... z, a1, ..."""
        number = len(self._found)
        name = chr(ord("a") + number % 26) + (str(number // 26) if number >= 26 else "")
        key = json.dumps(record.run, sort_keys=True)
        name, _, loads = self._found.setdefault(key, (name, record.run, {}))
        loads[record.part, record.name] = record.load  # once, however many rows name the record
        return name

    def rows(self) -> Iterator[tuple[str, ...]]:
        """What the letters stand for."""
        for name, run, loads in self._found.values():
            commit = (run["commit"] or "unknown")[:7] + (" and changes" if run["dirty"] else "")
            yield (
                name,
                commit,
                run["date"],
                machine.text(run["machine"]),
                machine.versions(run["machine"]),
                f"{statistics.median(loads.values()):.1f} (to {max(loads.values()):.1f})",
                f"`{run['command']}`",
            )


def write(store: Store) -> str:
    """The page, in Markdown."""
    runs = Runs()
    records = {part: store.read(part) for part in PARTS}
    groups = {part: _groups(records, part) for part in _TITLES}
    sections = [
        _compared(groups, runs),
        *(_models(groups[part], part, runs) for part in _TITLES),
        _slim(records["slim"].values(), runs),
        _input(records["input"].values(), runs),
        _left_out(records, runs),
        _runs(runs),
    ]
    return "\n\n".join(["# Benchmarks", _HEAD, *filter(None, sections)]) + "\n"


def _groups(records: dict[str, dict[str, Record]], part: str) -> dict[str, Record]:
    """The results of every group, in the suite's order: beside PyTorch or alone, the newer."""
    names = [group.name for group in GROUPS]
    names += [name for name in records[part] if name not in names]
    found = {}
    for name in names:
        both = records["torch"].get(torch_name(part, name)), records[part].get(name)
        done = [each for each in both if each is not None and each.reason is None]
        if done:
            found[name] = max(done, key=lambda record: record.run["date"])
    return found


def _compared(groups: dict[str, dict[str, Record]], runs: Runs) -> str:
    """Ratios of times within each group, PyTorch's among them."""
    rows = []
    for part, title in _TITLES.items():
        for name, record in groups[part].items():
            models = record.document["models"]
            for model in models:
                # Variants are what the first model is measured by; other models are measured by it.
                pair = (name, model) if model.startswith(f"{name}:") else (model, name)
                if model != name:
                    ratio = timing.ratio(*(models[each]["times_s"] for each in pair))
                    rows.append((title, *pair, ratio.text(), runs.letter(record)))
            for model, found in record.document.get("compared", {}).items():
                text = timing.Ratio(**found).text()
                rows.append((title, "PyTorch", model, text, runs.letter(record)))
    header = ("what", "the time of", "over that of", "ratio", "run")
    text = (
        "Above 1, the second is faster. PyTorch's coded networks are written literally, as the "
        "paper's equations are; its plain ones are the usual form (benchmarks/torch_models.py)."
    )
    return _section("What is compared with what", header, rows, text)


def _models(groups: dict[str, Record], part: str, runs: Runs) -> str:
    rows = []
    for record in groups.values():
        setup = record.document["setup"]
        yardstick = record.document.get("torch", {}).get("models", {})
        for model, figures in record.document["models"].items():
            theirs = yardstick.get(model)
            rows.append(
                (
                    model,
                    f"{setup['batch']} of {setup['size']}, {setup['dtype']}",
                    _spread(figures),
                    f"{figures['examples_per_s']:.1f}",
                    _rate(figures, setup, part),
                    f"{figures['peak_bytes'] / 1e9:.3f}",
                    f"{figures['compile_s']:.1f}",
                    _spread(theirs) if theirs else _NONE,
                    f"{theirs['peak_bytes'] / 1e9:.3f}" if theirs else _NONE,
                    runs.letter(record),
                )
            )
    header = (
        "model", "batch", "s", "images/s", "10⁹ operations/s", "peak GB", "compiling, s",
        "PyTorch, s", "PyTorch, peak GB", "run",
    )  # fmt: skip
    times = "three times" if part == "steps" else "once"
    text = (
        f"Operations are two for each multiply-add of a convolution, product or energy, {times} "
        "that of a forward pass; on devices whose bfloat16 peak is published the share of it is "
        "beside. The peak is what XLA says that the compiled program needs (arguments, outputs, "
        "temporaries, code), of PyTorch the growth of the process, on a GPU the most that its "
        "allocator held. Compiling includes tracing."
    )
    return _section(_TITLES[part], header, rows, text + _peaks(groups))


def _peaks(groups: dict[str, Record]) -> str:
    """The peaks that shares are of, with where they are from."""
    setups = [record.document["setup"] for record in groups.values()]
    rates = {setup["device"]: peak(setup["device"], setup["dtype"]) for setup in setups}
    return "".join(
        f" Peak of {kind}: {rate / 1e9:,.0f} · 10⁹ operations/s ({source(kind)})."
        for kind, rate in rates.items()
        if rate
    )


def _spread(figures: dict[str, Any]) -> str:
    times = figures["times_s"]
    return f"{figures['median_s']:.4g} ({min(times):.4g}–{max(times):.4g})"


def _rate(figures: dict[str, Any], setup: dict[str, Any], part: str) -> str:
    if not figures.get("macs"):
        return _NONE
    rate = _OPERATIONS[part] * figures["macs"] * figures["examples_per_s"]
    most = peak(setup["device"], setup["dtype"])
    shown = f"{rate / 1e9:,.0f}" if rate > 1e10 else f"{rate / 1e9:.2g}"
    return shown + (f" ({rate / most:.1%} of peak)" if most else "")


def _slim(records: Iterable[Record], runs: Runs) -> str:
    rows = []
    for record in records:
        found = record.document
        for row in found.get("times", ()):
            share = found["parameters"]["slim"] / found["parameters"]["full"]
            rows.append(
                (
                    record.name,
                    found["taken_out"],
                    f"{share:.3f}",
                    f"{found['macs_ratio']:.3f}",
                    str(row["batch"]),
                    f"{row['full_ms']:.2f}",
                    f"{row['slim_ms']:.2f}",
                    f"{row['ratio']:.3f}",
                    runs.letter(record),
                )
            )
    header = (
        "network", "taken out", "parameters", "multiply-adds", "batch", "full, ms", "small, ms",
        "time", "run",
    )  # fmt: skip
    text = (
        "What was taken out of a network against all of it, in inference: shares of parameters, "
        "multiply-adds and time (the median over neighbouring passes)."
    )
    return _section("Slimmed against full", header, rows, text)


def _input(records: Iterable[Record], runs: Runs) -> str:
    rows = []
    for record in records:
        letter = runs.letter(record) if record.reason is None else ""
        for path, each in record.document.get("streamed", {}).items():
            rows.append((f"{path} pixels", f"{each['images_per_s']:.0f} images/s a core", letter))
        for name, seconds in record.document.get("resident", {}).items():
            rows.append((f"resident: {name}", f"{1e3 * seconds:.1f} ms", letter))
    text = (
        "By processor time. Streamed: the quickest round. Resident: CIFAR-10's recipe for a batch "
        "of 32, beside the step of Coded ResNeXt-29 that it feeds (benchmarks/input.py)."
    )
    return _section("Input", ("path", "cost", "run"), rows, text)


def _left_out(records: dict[str, dict[str, Record]], runs: Runs) -> str:
    rows = [
        (part, record.name, record.reason, f"`{record.command}`", runs.letter(record))
        for part, own in records.items()
        for record in own.values()
        if record.reason is not None
    ]
    rows += [(part, name, "not run yet", _NONE, _NONE) for part, name in _not_run(records)]
    return _section("Without a result", ("part", "name", "why", "command", "run"), rows)


def _not_run(records: dict[str, dict[str, Record]]) -> Iterator[tuple[str, str]]:
    """Groups that no process of a part has measured or failed at; the quick suite has no others."""
    for part in _TITLES:
        beside = {g.name for g in GROUPS if torch_name(part, g.name) in records["torch"]}
        tried = beside.union(records[part])
        if any(group.name in tried for group in GROUPS if not group.quick):
            yield from ((part, group.name) for group in GROUPS if group.name not in tried)


def _runs(runs: Runs) -> str:
    header = ("run", "commit", "date", "machine", "versions and settings", "load", "command")
    text = (
        "Load: processes that wanted a core in the minute before a process of the suite, median "
        "and most (what the suite ran before counts too)."
    )
    return _section("Runs", header, list(runs.rows()), text)


def _section(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], text: str = ""
) -> str:
    if not rows:
        return ""
    return "\n\n".join(filter(None, (f"## {title}", text, _table(header, rows))))


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

"""The page of the suite's results, written from its JSON alone."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from benchmarks.peaks import peak
from benchmarks.suite.plan import PARTS
from benchmarks.suite.store import Record, Store

#: Operations of a training step and of a forward pass for each multiply-add of a forward pass: the
#: gradients of a layer's input and kernel take as many each as the layer.
_OPERATIONS = {"steps": 6, "inference": 2}
_TITLES = {"steps": "Training steps", "inference": "Inference"}
_NONE = "–"
_HEAD = f"""\
Written by `python -m benchmarks` from the JSON beside it. Every row names its run (last table). The
models of a group took turns in one process, so their ratios are of one stretch of time; PyTorch's
are of another process of the suite. “{_NONE}” was not run. Times are medians of wall time, with the
smallest and the largest."""


class Runs:
    """Letters for the runs of the suite, in the order that they are first asked for."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, dict[str, Any]]] = {}

    def letter(self, run: dict[str, Any]) -> str:
        """Of one run: a, b, ... z, a1, ..."""
        number = len(self._found)
        name = chr(ord("a") + number % 26) + (str(number // 26) if number >= 26 else "")
        return self._found.setdefault(json.dumps(run, sort_keys=True), (name, run))[0]

    def rows(self) -> Iterator[tuple[str, ...]]:
        """What the letters stand for."""
        for name, run in self._found.values():
            commit = (run["commit"] or "unknown")[:7] + (" and changes" if run["dirty"] else "")
            yield name, commit, run["date"], f"`{run['command']}`"


def write(store: Store) -> str:
    """The page, in Markdown."""
    runs = Runs()
    records = {part: store.read(part) for part in PARTS}
    sections = [
        _compared(records, runs),
        *(_models(records, part, runs) for part in _TITLES),
        _slim(records["slim"].values(), runs),
        _input(records["input"].values(), runs),
        _left_out(records, runs),
    ]
    about = _about(records)
    header = ("run", "commit", "date", "command")
    return (
        "\n\n".join(
            [
                "# Benchmarks",
                _HEAD,
                about,
                *filter(None, sections),
                "## Runs",
                _table(header, runs.rows()),
            ]
        )
        + "\n"
    )


def _about(records: dict[str, dict[str, Record]]) -> str:
    """Machines and versions, of everything that has a result."""
    found: dict[str, dict[str, None]] = {"Machine": {}, "Versions": {}}
    loads = []
    for part in records.values():
        for record in part.values():
            setup = record.document.get("setup", {})
            loads.append(record.load)
            if "device" in setup:
                found["Machine"][f"{setup['device']}, {setup.get('cores', '?')} cores"] = None
            names = [f"{n} {setup[n]}" for n in ("python", "jax", "torch") if n in setup]
            if len(names) > 1:
                found["Versions"][", ".join(names)] = None
    lines = [f"- {name}: {'; '.join(values)}" for name, values in found.items() if values]
    if loads:
        lines.append(
            f"- Load average just before a process: {min(loads):.1f} to {max(loads):.1f}, median "
            f"{statistics.median(loads):.1f} (what ran before counts too)"
        )
    return "\n".join(lines)


def _yardstick(records: dict[str, dict[str, Record]], part: str, group: str) -> Record | None:
    found = records["torch"].get(f"{part}: {group}")
    return found if found and found.reason is None else None


def _compared(records: dict[str, dict[str, Record]], runs: Runs) -> str:
    """Ratios of times: within each group, and of the yardstick to what it is the yardstick of."""
    rows = []
    for part, title in _TITLES.items():
        for name, record in records[part].items():
            models = record.document.get("models", {})
            for model in models:
                # Variants are what the first model is measured by; other models are measured by it.
                pair = (name, model) if model.startswith(f"{name}:") else (model, name)
                if model != name:
                    ratio = models[pair[0]]["median_s"] / models[pair[1]]["median_s"]
                    rows.append((title, *pair, f"{ratio:.3f}", _letters(runs, record, None)))
            torch = _yardstick(records, part, name)
            for model, theirs in torch.document["models"].items() if torch else ():
                if model in models:
                    ratio = theirs["median_s"] / models[model]["median_s"]
                    rows.append(
                        (title, "PyTorch", model, f"{ratio:.2f}", _letters(runs, record, torch))
                    )
    header = ("what", "the time of", "over that of", "ratio", "run")
    return _section("What is compared with what", header, rows)


def _models(records: dict[str, dict[str, Record]], part: str, runs: Runs) -> str:
    rows = []
    for name, record in records[part].items():
        setup, torch = record.document.get("setup", {}), _yardstick(records, part, name)
        for model, figures in record.document.get("models", {}).items():
            theirs = torch and torch.document["models"].get(model)
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
                    _letters(runs, record, torch if theirs else None),
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
        "temporaries), of PyTorch the growth of the process. Compiling includes tracing."
    )
    return _section(_TITLES[part], header, rows, text)


def _spread(figures: dict[str, Any]) -> str:
    times = figures["times_s"]
    return f"{figures['median_s']:.4f} ({min(times):.4f}–{max(times):.4f})"


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
                    runs.letter(record.run),
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
        letter = runs.letter(record.run) if record.reason is None else ""
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
        (part, record.name, record.reason, f"`{record.command}`", runs.letter(record.run))
        for part, own in records.items()
        for record in own.values()
        if record.reason is not None
    ]
    return _section("Without a result", ("part", "name", "why", "command", "run"), rows)


def _letters(runs: Runs, record: Record, other: Record | None) -> str:
    letters = [runs.letter(each.run) for each in (record, other) if each is not None]
    return ", ".join(dict.fromkeys(letters))


def _section(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], text: str = ""
) -> str:
    if not rows:
        return ""
    return "\n\n".join(filter(None, (f"## {title}", text, _table(header, rows))))


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

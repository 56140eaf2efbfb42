"""Costs as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from branchnets.aot.collectives import moved
from branchnets.aot.cost import Cost
from branchnets.aot.study import Claim
from branchnets.aot.topologies import Topology
from branchnets.engine.budget import size
from branchnets.engine.records.logging import format_table

#: Fields of :class:`Cost` by which steps are compared too -> what tables call them.
WORDS = {
    "batch_size": "batch, on all devices",
    "temp_bytes": "activations and workspace",
    "peak_bytes": "peak",
    "total_flops": "FLOPs",
    "flops": "FLOPs, loops once",
    "total_bytes": "bytes moved",
    "bytes_accessed": "bytes moved, loops once",
    "total_compiler_seconds": "compiler's estimate",
    "compiler_seconds": "compiler's estimate, loops once",
}


def heading(topology: Topology, name: str) -> str:
    """One line on a topology."""
    chip, devices = topology.chip, len(topology.devices)
    flops, bandwidth = chip.flops / chip.devices, chip.bandwidth / chip.devices
    what = "a core" if chip.devices > 1 else "a chip"
    return (
        f"{name} on {topology.name}: {devices} devices, each {what} of TPU {chip.name} with "
        f"{size(topology.hbm_bytes)}, {flops / 1e12:.4g} Tflop/s in bfloat16, "
        f"{size(int(bandwidth))}/s"
    )


def table(found: Sequence[Cost]) -> str:
    """The steps of one topology side by side, then what to know of those that do not fit."""
    rows = [(name, *(value(one) for one in found)) for name, value in _rows(found)]
    text = format_table(rows, ("on each device", *(one.step for one in found)))
    return "\n".join([text, *_notes(found), *(_misfit(one) for one in found if not one.fits)])


def _notes(found: Sequence[Cost]) -> list[str]:
    notes = [
        "Computing and MFU are by the peak rate in bfloat16, whatever type a step computes in."
    ]
    notes += [
        f"{one.step}: lower bound, {one.unknown_loops} loops of unknown length or cost count once."
        for one in found
        if one.unknown_loops
    ]
    return notes


def _rows(found: Sequence[Cost]) -> list:
    names = dict.fromkeys(name for one in found for name in one.parts)
    rows: list = [_row("batch_size", "{:,}".format)]
    rows += [
        (name, lambda one, name=name: size(one.parts.get(name, 0)))  # type: ignore[misc]
        for name in names
    ]
    rows += [
        _row("temp_bytes", _size),
        ("program", lambda one: _size(one.code_bytes)),
        (
            f"{WORDS['peak_bytes']}, of {size(found[0].usable_bytes)} usable, "
            f"{size(found[0].hbm_bytes)} published",
            lambda one: _size(one.peak_bytes),
        ),
        _row("total_flops", _number),
        _row("total_bytes", _size),
        ("loops", lambda one: "-" if one.loops is None else str(one.loops)),
        _row("flops", _number),
        _row("bytes_accessed", _size),
    ]
    kinds = dict.fromkeys(row["kind"] for one in found for row in one.collectives or ())
    rows += [
        (f"{kind}: number, operands", lambda one, kind=kind: _exchange(one, kind))  # type: ignore[misc]
        for kind in kinds
    ]
    if not kinds:
        rows.append(("collectives", lambda one: "none" if one.fits else "-"))
    for name, field in (
        ("roofline: computing", "compute_seconds"),
        ("roofline: memory", "memory_seconds"),
        ("roofline: network", "network_seconds"),
        ("roofline: step", "step_seconds"),
    ):
        rows.append(
            (
                name,
                lambda one, field=field: _time(one.roofline and getattr(one.roofline, field)),  # type: ignore[misc]
            )
        )
    rows += [
        ("roofline: images/s, all devices", lambda one: _number(one.images_per_second)),
        ("roofline: MFU", _mfu),
        _row("total_compiler_seconds", _time),
        _row("compiler_seconds", _time),
        ("compiled in", lambda one: f"{one.compile_seconds:.0f} s"),
    ]
    return rows


def _row(field: str, shown: Callable[[Any], str]) -> tuple[str, Callable[[Cost], str]]:
    return WORDS[field], lambda one: shown(getattr(one, field))


def _mfu(one: Cost) -> str:
    known = one.roofline is not None and one.roofline.mfu is not None
    return f"{one.roofline.mfu:.1%}" if known else "-"  # type: ignore[union-attr]


def _exchange(one: Cost, kind: str) -> str:
    for row in one.collectives or ():
        if row["kind"] == kind:
            looped = f" ({row['in_loops']} of {row['count']} in loops)" if row["in_loops"] else ""
            return f"{row['times']}, {size(row['moved_bytes'])}{looped}"
    return "-" if one.collectives is None else "0"


def _misfit(one: Cost) -> str:
    text = f"{one.step} does not fit"
    if one.needed_bytes or one.peak_bytes:
        text += f": it needs {size(one.needed_bytes or one.peak_bytes or 0)} a device"
    text += f", of {size(one.usable_bytes)} that a program may have"
    if one.reason:
        text += f" ({one.reason})"
    if one.largest_batch is None:
        return text + "."
    field = "batch_size" if one.step.startswith("train") else "eval.batch_size"
    if not one.largest_batch:
        return (
            text + f". The smallest batch, --config.{field}={one.smallest_batch}, does not either."
        )
    return text + f". The largest batch that does: --config.{field}={one.largest_batch}."


def sweep_table(found: Sequence[Cost]) -> str:
    """One line a topology."""
    headers = (
        *("topology", "devices", "batch", "FLOPs", "bytes moved", "all-reduces", "their operands"),
        *("other collectives", "temporaries", "peak", "step (roofline)", "compiled in"),
    )
    return format_table([_sweep_row(one) for one in found], headers)


def _sweep_row(one: Cost) -> tuple:
    times, operand_bytes = moved(one.exchanges, "all-reduce")
    return (
        one.topology,
        one.devices,
        one.batch_size,
        _number(one.total_flops),
        _size(one.total_bytes),
        times if one.fits else "-",
        size(operand_bytes) if one.fits else "-",
        sum(c.kind != "all-reduce" for c in one.exchanges) if one.fits else "-",
        _size(one.temp_bytes),
        _size(one.peak_bytes) if one.fits else "does not fit",
        _time(one.roofline.step_seconds if one.roofline else None),
        f"{one.compile_seconds:.0f} s",
    )


def claims_table(found: Sequence[Claim]) -> str:
    """One line a claim."""
    words = {True: "holds", False: "FAILS", None: "not claimed"}
    return "\n".join(f"  {words[claim.holds]}: {claim.what} ({claim.shown})" for claim in found)


def _size(count: float | None) -> str:
    return "-" if count is None else size(int(count))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e3 * seconds:.4g} ms"

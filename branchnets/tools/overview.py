"""The first section of every report: how good the run is, and what it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from branchnets import confusion, counting
from branchnets.engine import config as configs
from branchnets.engine.evaluate import scalars
from branchnets.engine.runs import Run
from branchnets.report.content import Section, Table
from branchnets.report.stats import proportion_interval


def section(run: Run, metrics: Mapping[str, Any], split: str) -> Section:
    """Metrics of a split, the architecture and the config.

    Args:
      run: finished.
      metrics: what its evaluation gave.
      split: what was evaluated.
    """
    examples = int(confusion.matrices(metrics)[""].sum())
    accuracy = float(metrics["accuracy"])
    low, high = proportion_interval(round(accuracy * examples), examples)
    architecture = counting.describe(run.model, run.dataset.image_shape, depth=2)
    return Section(
        title="Run",
        text=(
            f"The network gives {accuracy:.2%} of the {examples:,} images of split {split!r} "
            f"their class; with so many images the 95 % interval (Wilson) is {low:.2%} to "
            f"{high:.2%}."
        ),
        tables=(
            _metrics(metrics, (low, high), split),
            _architecture(architecture),
            _config(run),
        ),
        figures_of_merit={
            "accuracy": accuracy,
            "accuracy_low": low,
            "accuracy_high": high,
            "examples": examples,
            "parameters": architecture.parameters,
            "macs": architecture.macs,
            "metrics": scalars(dict(metrics)),
        },
    )


def _metrics(metrics: Mapping[str, Any], interval: tuple[float, float], split: str) -> Table:
    numbers = scalars(dict(metrics))
    names = ["accuracy", *sorted(set(numbers) - {"accuracy"})]
    return Table(
        "run_metrics",
        f"Every metric of the run on split {split!r}, each example counted once; the interval is "
        "Wilson's, 95 %.",
        ("metric", "value", "from", "to"),
        tuple(
            (name, numbers[name], *(interval if name == "accuracy" else (None, None)))
            for name in names
        ),
    )


def _architecture(found: counting.Description) -> Table:
    rows: list[tuple[Any, ...]] = [
        (row.name, _shape(row.output_shape), row.parameters, row.macs) for row in found.stages
    ]
    rows.append(("total", None, found.parameters, found.macs))
    once = ""
    if found.weight_macs:
        once = f" {found.weight_macs:,} more are done once a batch, on the weights alone."
    return Table(
        "table1_architecture",
        f"The network for one image of {_shape(found.input_shape)}: parameters and multiply-adds "
        f"(MACs) of each part.{once}",
        ("part", "output", "parameters", "MACs"),
        tuple(rows),
    )


def _shape(shape: tuple[int, ...] | None) -> str | None:
    return None if shape is None else "×".join(map(str, shape))


def _config(run: Run) -> Table:
    fields = configs.flatten(run.config)
    rows = [(name, str(value)) for name, value in fields.items() if value is not None]
    return Table(
        "run_config",
        "The config of the run; fields that are empty are left out.",
        ("field", "value"),
        tuple(rows),
    )

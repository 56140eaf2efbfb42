"""How a finished run is summed up: summary.json, and a table on the terminal."""

from __future__ import annotations

import shlex
from typing import Any

from branchnets import confusion, counting
from branchnets.engine import evaluate
from branchnets.engine.evaluate import Evaluator
from branchnets.engine.records import environment
from branchnets.engine.records.logging import MetricWriter, format_table
from branchnets.engine.records.progress import duration
from branchnets.engine.records.rundir import RunDir
from branchnets.engine.setup import Setup
from branchnets.engine.state import TrainState
from branchnets.report.write import csv_text


def summarise(
    setup: Setup,
    run_dir: RunDir,
    writer: MetricWriter,
    state: TrainState,
    evaluator: Evaluator,
    seconds: float,
) -> dict[str, Any]:
    """Evaluates the last state on the test split, writes what it gives and prints the table.

    Written: summary.json, per_class.csv and confusion.csv.

    Args:
      seconds: training time of the whole run.
    """
    test = setup.evaluation_input("test")
    metrics = evaluator(state.averaged, state.extra, test)
    step = int(state.step)
    writer.write(step, confusion.without(metrics), split="final_test")
    _write_classes(run_dir, metrics, setup.dataset.class_names)
    figures, text = setup.family.summary(metrics)
    found = counting.describe(setup.family.model, setup.dataset.image_shape)
    summary = {
        "model": setup.config.model.name,
        "dataset": setup.dataset.name,
        "seed": setup.config.seed,
        "steps": step,
        "epochs": setup.config.epochs,
        "test_accuracy": metrics["accuracy"],
        "test_examples": int(confusion.matrices(metrics)[""].sum()),
        "test": evaluate.scalars(metrics),
        "averaged_weights": bool(state.ema),
        **figures,
        "parameters": found.parameters,
        "macs": found.macs,
        "seconds": seconds,
        "environment": environment.describe(),
    }
    if setup.config.eval.image_size is not None:
        summary["eval_image_size"] = setup.config.eval.image_size
    if (begun := run_dir.read_json("init.json")) is not None:
        summary["init"] = begun
    if state.ema:
        newest = evaluator(state.variables, state.extra, test)
        summary["test_accuracy_newest_weights"] = newest["accuracy"]
    run_dir.write_json("summary.json", summary)
    if run_dir.write:
        print(render(summary, f"{text}\n\n{_next(run_dir)}".strip(), run_dir))
    return summary


def _write_classes(run_dir: RunDir, metrics: dict[str, Any], class_names: tuple[str, ...]) -> None:
    found = confusion.matrices(metrics)
    tables = (
        confusion.class_table(found, class_names, "per_class", "test"),
        confusion.count_table(found[""], class_names, "confusion"),
    )
    for table in tables:
        run_dir.write_text(f"{table.name}.csv", csv_text(table))


def _next(run_dir: RunDir) -> str:
    """What can be done with a run."""
    return (
        "A report with figures of what it does:\n"
        f"  python -m branchnets.tools.analyze --workdir={shlex.quote(str(run_dir.path))}"
    )


def render(summary: dict[str, Any], text: str, run_dir: RunDir) -> str:
    """The closing table as text."""
    accuracy = f"{summary['test_accuracy']:.2%}"
    if summary["averaged_weights"]:
        newest = summary["test_accuracy_newest_weights"]
        accuracy += f" with the weights' running average, {newest:.2%} with the newest"
    rows = [
        ("model", summary["model"]),
        ("data", f"{summary['dataset']}, {summary['test_examples']:,} test images"),
        ("test accuracy", accuracy),
        ("parameters", f"{summary['parameters']:,}"),
        ("multiply-adds", f"{summary['macs']:,} per image"),
        ("steps", f"{summary['steps']:,} ({summary['epochs']} epochs)"),
        ("training time", duration(summary["seconds"])),
        ("run directory", str(run_dir.path)),
    ]
    parts = ["", format_table(rows)]
    if text:
        parts += ["", text]
    return "\n".join(parts)

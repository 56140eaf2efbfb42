"""Metrics in files, the progress line, tables."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from branchnets.engine.records.logging import MetricWriter, Progress, format_table, read_metrics
from branchnets.engine.records.progress import duration


def lines(directory):
    """Every line of the file, strictly: all of it must be JSON."""
    text = (directory / "metrics.jsonl").read_text()
    assert not text or text.endswith("\n")
    return [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]


def events(directory):
    """(tag, step, value) of all TensorBoard events, read as the format is defined."""
    found = []
    for file in sorted(directory.glob("events.*")):
        data = file.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            event = event_pb2.Event.FromString(data[12 : 12 + length])
            found += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
            data = data[16 + length :]
    return found


# Metrics


def test_a_line_a_step_and_events_beside(tmp_path):
    with MetricWriter(tmp_path, clock=lambda: 12.5) as writer:
        writer.write(10, {"loss": np.float32(0.5), "examples": 3}, epoch=0.25)
        writer.write(10, {"accuracy": 0.75}, split="test")
        assert len(lines(tmp_path)) == 2  # at once, not when closed
    assert lines(tmp_path) == [
        {"step": 10, "split": "train", "time": 12.5, "epoch": 0.25, "loss": 0.5, "examples": 3},
        {"step": 10, "split": "test", "time": 12.5, "accuracy": 0.75},
    ]
    assert read_metrics(tmp_path / "metrics.jsonl") == lines(tmp_path)
    assert events(tmp_path) == [
        ("train/loss", 10, 0.5),
        ("train/examples", 10, 3.0),
        ("test/accuracy", 10, 0.75),
    ]


def test_arrays_and_values_that_are_not_finite(tmp_path):
    with MetricWriter(tmp_path) as writer:
        writer.write(1, {"loss": math.nan, "by_block": np.array([[1.0, math.inf]])})
    (line,) = lines(tmp_path)
    assert line["loss"] is None and line["by_block"] == [[1.0, None]]
    ((tag, _, value),) = events(tmp_path)
    assert tag == "train/loss" and math.isnan(value)


def test_each_step_is_there_once_after_a_resume(tmp_path):
    with MetricWriter(tmp_path) as writer:
        for step in (2, 4, 6):
            writer.write(step, {"loss": step})
            writer.write(step, {"accuracy": step}, split="test")
    with MetricWriter(tmp_path, start_step=4) as writer:
        assert [line["step"] for line in lines(tmp_path)] == [2, 2, 4, 4]
        writer.write(4, {"accuracy": 400}, split="test")  # evaluated again
        writer.write(6, {"loss": 60})
        writer.write(6, {"loss": 61})
    assert [(line["split"], line["step"]) for line in lines(tmp_path)] == [
        ("train", 2), ("test", 2), ("train", 4), ("test", 4), ("train", 6),
    ]  # fmt: skip
    assert lines(tmp_path)[3]["accuracy"] == 4 and lines(tmp_path)[4]["loss"] == 60
    assert [value for tag, step, value in events(tmp_path) if step == 6][-1] == 60


def test_starting_over_drops_everything(tmp_path):
    with MetricWriter(tmp_path) as writer:
        writer.write(5, {"loss": 1})
    with MetricWriter(tmp_path, start_step=0) as writer:
        writer.write(5, {"loss": 2})
    (line,) = lines(tmp_path)
    assert line["loss"] == 2


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_last_line_is_repaired(tmp_path, cut, capsys):
    with MetricWriter(tmp_path) as writer:
        for step in (1, 2, 3):
            writer.write(step, {"loss": 0.125 * step})
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(file.read_bytes()[:-cut])
    with MetricWriter(tmp_path, start_step=3) as writer:
        writer.write(3, {"loss": 0.375})
        writer.write(4, {"loss": 0.5})
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4]
    assert [line["loss"] for line in lines(tmp_path)] == [0.125, 0.25, 0.375, 0.5]
    assert capsys.readouterr().err == ""
    assert not list(tmp_path.glob("*damaged*"))


def test_damage_elsewhere_is_told_and_a_copy_kept(tmp_path, capsys):
    with MetricWriter(tmp_path) as writer:
        for step in (1, 2, 3):
            writer.write(step, {"loss": step})
    file = tmp_path / "metrics.jsonl"
    damaged = file.read_text().replace('"step": 2', '"step: 2')
    file.write_text(damaged)
    MetricWriter(tmp_path, start_step=3).close()
    assert [line["step"] for line in lines(tmp_path)] == [1, 3]
    assert (tmp_path / "metrics-damaged.jsonl").read_text() == damaged
    assert "metrics-damaged.jsonl" in capsys.readouterr().err


def test_a_silent_process_writes_nothing(tmp_path):
    with MetricWriter(tmp_path, enabled=False) as writer:
        writer.write(1, {"loss": 1})
    assert list(tmp_path.iterdir()) == []


def test_names_of_the_line_itself_are_no_metrics(tmp_path):
    with MetricWriter(tmp_path) as writer, pytest.raises(ValueError, match="step"):
        writer.write(1, {"step": 1})


def test_tensorflow_is_not_imported():
    code = """
import sys
import branchnets.engine.records.logging
sys.exit(" ".join({"tensorflow", "torch"} & set(sys.modules)) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Progress


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_rate_leaves_out_compilation_and_pauses():
    clock, stream = Clock(), io.StringIO()
    progress = Progress(100, batch_size=8, stream=stream, clock=clock, every_seconds=0)
    clock.now += 60  # compiling
    progress.update(10, loss=2.5)
    assert stream.getvalue() == "step 10/100 · loss 2.5\n"
    assert progress.examples_per_second is None
    clock.now += 2
    progress.update(20, loss=1.25)
    assert progress.examples_per_second == pytest.approx(40)
    with progress.pause():
        clock.now += 1000
    clock.now += 2
    progress.update(30, loss=0.123456)
    assert stream.getvalue().splitlines()[1:] == [
        "step 20/100 · 40 examples/s · loss 1.25 · 0:16 left",
        "step 30/100 · 40 examples/s · loss 0.1235 · 0:14 left",
    ]


def test_the_rate_is_that_of_the_latest_updates():
    clock = Clock()
    progress = Progress(10**6, batch_size=1, stream=io.StringIO(), clock=clock)
    for step in range(1000):
        clock.now += 1.0 if step < 500 else 0.001
        progress.update(step)
    assert progress.examples_per_second == pytest.approx(1000)


def test_a_resumed_run_counts_its_own_steps_only():
    clock, stream = Clock(), io.StringIO()
    progress = Progress(100, batch_size=8, stream=stream, clock=clock, every_seconds=0)
    progress.update(60)
    clock.now += 1
    progress.update(62)
    assert stream.getvalue().splitlines()[-1] == "step 62/100 · 16 examples/s · 0:19 left"


def test_a_terminal_has_one_line_that_changes(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    clock, stream = Clock(), Terminal()
    progress = Progress(2, batch_size=8, stream=stream, clock=clock)
    progress.update(1, loss=1.0)
    progress.message("a checkpoint was set aside")
    clock.now += 1
    progress.update(2, loss=0.5)
    text = stream.getvalue()
    assert text == (
        "\rstep 1/2 · loss 1\x1b[K"
        "\r\x1b[Ka checkpoint was set aside\nstep 1/2 · loss 1"
        "\rstep 2/2 · 8 examples/s · los\x1b[K\n"
    )
    progress.close()
    assert stream.getvalue() == text


def test_elsewhere_lines_come_now_and_then_and_at_the_end():
    clock, stream = Clock(), io.StringIO()
    progress = Progress(100, batch_size=1, stream=stream, clock=clock, every_seconds=10)
    for step in range(1, 101):
        clock.now += 1
        progress.update(step)
    progress.close()
    steps = [int(line.split()[1].split("/")[0]) for line in stream.getvalue().splitlines()]
    assert steps == [1, 11, 21, 31, 41, 51, 61, 71, 81, 91, 100]


def test_a_silent_process_prints_nothing():
    stream = io.StringIO()
    progress = Progress(2, batch_size=1, stream=stream, enabled=False)
    progress.update(1)
    progress.message("x")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("seconds,text", [(0, "0:00"), (59.6, "1:00"), (3723, "1:02:03")])
def test_durations(seconds, text):
    assert duration(seconds) == text


# Tables


def test_tables_are_aligned():
    rows = [("accuracy", 0.98125, None), ("parameters", 1234567, "yes"), ("ok", np.float32(2), "")]
    assert format_table(rows, ("metric", "value", "note")).splitlines() == [
        "metric          value  note",
        "----------  ---------  ----",
        "accuracy       0.9812  –",
        "parameters  1,234,567  yes",
        "ok                  2",
    ]
    assert format_table([("a", 1)]) == "a  1"
    assert format_table([], ("a", "b")) == "a  b\n-  -"
    assert format_table([]) == ""

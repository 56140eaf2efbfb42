"""Whole runs: resuming, stopping, damage, and what is refused."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import jax
import pytest
from run_states import assert_same_bits, final_state

from branchnets import main
from branchnets.engine import train as training
from branchnets.engine.loop import Loop
from branchnets.engine.records.logging import read_metrics
from branchnets.engine.runs import load_run
from branchnets.engine.saving import filelist
from branchnets.engine.saving.checkpoint import Checkpoints
from branchnets.engine.stopping import INTERRUPTED, PREEMPTED
from branchnets.errors import DataError, TrainingError

ONE = jax.devices()[:1]
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def stop_at(monkeypatch):
    """Asks the run to stop after a step, as the signal would."""

    def arrange(step, status=PREEMPTED):
        original = Loop._after_step

        def after(loop):
            original(loop)
            if loop.done == step:
                loop.peers.stop.status = status

        monkeypatch.setattr(Loop, "_after_step", after)

    yield arrange
    monkeypatch.undo()


#: Eight steps, four an epoch. After the first epoch there is an evaluation alone.
FIELDS = {
    "epochs": 2, "augment.crop_padding": 1, "ema.decay": 0.5, "bn_reestimation.batches": 2,
    "checkpoint.every_epochs": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """A run that nothing disturbs."""
    path = tmp_path_factory.mktemp("whole") / "run"
    assert training.train(tiny(**FIELDS), str(path), ONE) == 0
    return path


def without_times(path):
    summary = json.loads((path / "summary.json").read_text())
    for name in ("seconds", "environment"):
        del summary[name]
    return summary


def test_a_run_stopped_in_mid_epoch_ends_where_an_uninterrupted_one_ends(
    tiny, whole, tmp_path, stop_at, monkeypatch, capsys
):
    config, stopped = tiny(**FIELDS), tmp_path / "stopped"
    stop_at(3, PREEMPTED)
    assert training.train(config, str(stopped), ONE) == PREEMPTED
    assert "Resume with the same command" in capsys.readouterr().err
    monkeypatch.undo()
    assert training.train(config, str(stopped), ONE) == 0
    error = capsys.readouterr().err
    assert "Resuming" in error and "batch-norm statistics of 2 training batches" in error
    one, other = (final_state(path) for path in (whole, stopped))
    assert one.step == 8 and one.ema.keys() == {"params", "batch_stats"}
    assert_same_bits(one, other)
    assert without_times(whole) == without_times(stopped)
    lines = read_metrics(stopped / "metrics.jsonl")
    keys = [(line["split"], line["step"]) for line in lines]
    assert len(keys) == len(set(keys)) and ("train", 8) in keys
    check_averages_are_used(whole, one, capsys)


def check_averages_are_used(workdir, state, capsys):
    """Of a run with running averages: its evaluations, and what a user gets of it."""
    summary = json.loads((workdir / "summary.json").read_text())
    run = load_run(workdir, devices=ONE)
    assert_same_bits(run.variables, state.ema)
    averaged = run.evaluate()["cross_entropy"]
    newest = dataclasses.replace(run, state=run.state.replace(ema={})).evaluate()
    assert averaged != newest["cross_entropy"]
    assert summary["averaged_weights"] is True
    assert summary["test"]["cross_entropy"] == averaged
    assert summary["test_accuracy_newest_weights"] == newest["accuracy"]
    during = Checkpoints(workdir / "checkpoints", read_only=True).metrics(8)
    assert during["cross_entropy"] == averaged  # which is what the best checkpoint is chosen by
    capsys.readouterr()
    assert main.main(["main", "--mode=eval", f"--workdir={workdir}", "--config.ema.decay=0.0"]) == 0
    printed = capsys.readouterr().out.partition("\n\n")[0]
    table = dict(line.split()[:2] for line in printed.splitlines())
    assert float(table["cross_entropy"]) == pytest.approx(newest["cross_entropy"], abs=1e-3)


def test_what_an_evaluation_that_fails_leaves_undone_is_made_up_for(
    tiny, whole, tmp_path, monkeypatch
):
    failing = tmp_path / "failing"
    original, failed = Loop._evaluate, []

    def evaluate(loop):
        if loop.done not in failed:
            failed.append(loop.done)
            raise DataError("the images cannot be read")
        return original(loop)

    monkeypatch.setattr(Loop, "_evaluate", evaluate)
    for step in (4, 8):
        with pytest.raises(DataError, match="cannot be read"):
            training.train(tiny(**FIELDS), str(failing), ONE)
        steps = Checkpoints(failing / "checkpoints", read_only=True)
        assert steps.latest_step() == step and steps.metrics(step) is None
    assert training.train(tiny(**FIELDS), str(failing), ONE) == 0
    one, other = (final_state(path) for path in (whole, failing))
    assert_same_bits(one, other)
    found = [Checkpoints(path / "checkpoints", read_only=True) for path in (whole, failing)]
    assert found[0].metrics(8) == found[1].metrics(8) is not None
    assert found[0].best_step() == found[1].best_step() == 8
    assert without_times(whole) == without_times(failing)
    lines = [
        {(line["split"], line["step"]): line.get("accuracy") for line in read_metrics(file)}
        for file in (whole / "metrics.jsonl", failing / "metrics.jsonl")
    ]
    assert lines[0] == lines[1] and ("test", 4) in lines[0]


@pytest.mark.slow  # as test_step has it, through the whole trainer
def test_a_step_that_is_not_finite_stops_the_run_with_its_name(tiny, tmp_path):
    config = tiny(**{"optimizer.learning_rate": 1e30, "log.every_steps": 1, "epochs": 2})
    with pytest.raises(TrainingError, match=r"update of step \d+ was not finite \(.*parameters"):
        training.train(config, str(tmp_path), ONE)
    steps = Checkpoints(tmp_path / "checkpoints", read_only=True).all_steps()
    assert steps == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=configs/coded_digit.py", "--workdir=x"], "coded_digits.py"),
        (["--config=configs/coded_digits.py"], "--workdir"),
        (["--workdir=x"], "--config"),
        (["--config=configs/coded_digits.py", "--workdir=x", "--config.coded.nu=1"], "coded.mu"),
        (
            [
                "--config=configs/coded_digits.py",
                "--workdir=x",
                "--config.model.name=resnext_digit",
            ],
            "resnext_digits",
        ),
        (
            ["--config=configs/coded_digits.py", "--workdir=x", "--config.model.name=resnet50"],
            "belongs to family 'plain'",
        ),
        (["--config=configs/coded_digits.py", "--workdir=x", "--config.data.name=digit"], "digits"),
        (
            ["--config=configs/coded_digits.py", "--workdir=x", "--config.bn_group_size=48"],
            "bn_group_size",
        ),
        (
            [
                "--config=configs/coded_digits.py:smoke",
                "--workdir=x",
                "--config.data.num_classes=7",
            ],
            "no coding scheme for 7 classes",
        ),
        (["--mode=eval", "--workdir=nowhere"], "no run directory"),
        (
            ["--config=configs/coded_cifar10.py", "--workdir=x", "--config.data.data_dir=nowhere"],
            "download_and_prepare",
        ),
        (
            ["--config=configs/coded_digits.py", "--workdir=x", "--config.eval.split=tset"],
            "no split 'tset'",
        ),
        (
            [
                "--config=configs/coded_digits.py",
                "--workdir=x",
                "--config.optimizer.learning_rate=0.0",
            ],
            "must be above 0",
        ),
        (
            ["--config=configs/coded_digits.py", "--workdir=x", "--config.model.drop_rate=1.0"],
            "in [0, 1)",
        ),
    ],
)
def test_bad_input_is_one_clear_line(arguments, message, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main.main(["main", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and "Traceback" not in error
    assert not pathlib.Path("x").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, PREEMPTED), (signal.SIGINT, INTERRUPTED)]
)
def test_signals_save_and_the_resumed_run_is_the_uninterrupted_one(tmp_path, number, status):
    environment = {**os.environ, "XLA_FLAGS": ""}
    command = [
        sys.executable, "-m", "branchnets.main", "--config=configs/coded_digits.py:smoke",
        "--config.data.fake_size=512", "--config.epochs=6", "--config.log.every_steps=1",
        "--config.checkpoint.every_epochs=6",
    ]  # fmt: skip

    def start(name):
        return subprocess.Popen(
            [*command, f"--workdir={tmp_path / name}"],
            cwd=ROOT, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    assert start("whole").wait(300) == 0
    process = start("stopped")
    metrics = tmp_path / "stopped" / "metrics.jsonl"
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        if metrics.exists() and len(metrics.read_text().splitlines()) > 3:
            break
        time.sleep(0.02)
    process.send_signal(number)
    _, error = process.communicate(timeout=200)
    assert process.returncode == status, error
    assert "Resume with the same command" in error
    assert start("stopped").wait(300) == 0
    one, other = (final_state(tmp_path / name) for name in ("whole", "stopped"))
    assert one.step == 384
    assert_same_bits(one, other)


def test_a_save_that_failed_in_the_background_is_made_up_for_at_the_next_look(
    tiny, whole, tmp_path, monkeypatch, capsys
):
    saved, check, save = [], Checkpoints.check_for_errors, Checkpoints.save
    listing, ended = filelist.write, threading.Event()

    def fail_once(folder, **options):  # in the thread that writes
        if ended.is_set():
            return listing(folder, **options)
        ended.set()
        raise OSError("No space left on device")

    def look(checkpoints):
        while saved == [3] and checkpoints._manager.is_saving_in_progress():
            time.sleep(0.01)  # it has failed before the next step is done
        check(checkpoints)

    def record(checkpoints, step, *rest):
        saved.append(step)
        return save(checkpoints, step, *rest)

    monkeypatch.setattr(filelist, "write", fail_once)
    monkeypatch.setattr(Checkpoints, "check_for_errors", look)
    monkeypatch.setattr(Checkpoints, "save", record)
    config = tiny(**{**FIELDS, "checkpoint.every_epochs": 1, "checkpoint.every_steps": 3})
    assert training.train(config, str(tmp_path / "run"), ONE) == 0
    assert saved == [3, 4, 6, 8]
    assert "No space left on device" in capsys.readouterr().err
    assert_same_bits(final_state(tmp_path / "run"), final_state(whole))

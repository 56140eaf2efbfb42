"""Whole runs: resuming, stopping, damage, and what is refused."""

import csv
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from run_states import assert_same_bits, final_state

from branchnets import confusion, main
from branchnets.engine import disk
from branchnets.engine import train as training
from branchnets.engine.checkpoint import Checkpoints
from branchnets.engine.evaluate import Evaluator
from branchnets.engine.logging import read_metrics
from branchnets.engine.loop import Loop
from branchnets.engine.rundir import RunDir
from branchnets.engine.runs import load_run
from branchnets.engine.stopping import INTERRUPTED, PREEMPTED
from branchnets.errors import CheckpointError, DataError, RunDirError, TrainingError

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
                loop.stop.status = status

        monkeypatch.setattr(Loop, "_after_step", after)

    yield arrange
    monkeypatch.undo()


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """A run of three epochs of four steps that is at its end; what it keeps is the default."""
    path = tmp_path_factory.mktemp("finished") / "run"
    assert training.train(tiny(epochs=3), str(path), ONE) == 0
    return path


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of it, to be changed."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def without_times(path):
    summary = json.loads((path / "summary.json").read_text())
    for name in ("seconds", "environment"):
        del summary[name]
    return summary


def test_a_run_stopped_in_mid_epoch_ends_where_an_uninterrupted_one_ends(
    tiny, tmp_path, stop_at, monkeypatch, capsys
):
    # Eight steps of four an epoch.
    config = tiny(**{"epochs": 2, "augment.crop_padding": 1, "ema.decay": 0.5})
    assert training.train(config, str(tmp_path / "whole"), ONE) == 0
    stop_at(3, PREEMPTED)
    assert training.train(config, str(tmp_path / "stopped"), ONE) == PREEMPTED
    assert "Resume with the same command" in capsys.readouterr().err
    monkeypatch.undo()
    assert training.train(config, str(tmp_path / "stopped"), ONE) == 0
    assert "Resuming" in capsys.readouterr().err
    one, other = (final_state(tmp_path / name) for name in ("whole", "stopped"))
    assert one.step == 8 and one.ema.keys() == {"params", "batch_stats"}
    assert_same_bits(one, other)
    assert without_times(tmp_path / "whole") == without_times(tmp_path / "stopped")
    lines = read_metrics(tmp_path / "stopped" / "metrics.jsonl")
    keys = [(line["split"], line["step"]) for line in lines]
    assert len(keys) == len(set(keys)) and ("train", 8) in keys
    check_averages_are_used(tmp_path / "whole", one, capsys)


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


def test_what_an_evaluation_that_fails_leaves_undone_is_made_up_for(tiny, tmp_path, monkeypatch):
    config = tiny(**{"epochs": 2, "ema.decay": 0.5, "bn_reestimation.batches": 2})
    config.checkpoint.every_epochs = 2  # after the first epoch there is an evaluation alone
    assert training.train(config, str(tmp_path / "whole"), ONE) == 0
    original, failed = Loop._evaluate, []

    def evaluate(loop):
        if loop.done not in failed:
            failed.append(loop.done)
            raise DataError("the images cannot be read")
        return original(loop)

    monkeypatch.setattr(Loop, "_evaluate", evaluate)
    for step in (4, 8):
        with pytest.raises(DataError, match="cannot be read"):
            training.train(config, str(tmp_path / "failed"), ONE)
        steps = Checkpoints(tmp_path / "failed" / "checkpoints", read_only=True)
        assert steps.latest_step() == step and steps.metrics(step) is None
    assert training.train(config, str(tmp_path / "failed"), ONE) == 0
    one, other = (final_state(tmp_path / name) for name in ("whole", "failed"))
    assert_same_bits(one, other)
    found = [
        Checkpoints(tmp_path / name / "checkpoints", read_only=True) for name in ("whole", "failed")
    ]
    assert found[0].metrics(8) == found[1].metrics(8) is not None
    assert found[0].best_step() == found[1].best_step() == 8
    assert without_times(tmp_path / "whole") == without_times(tmp_path / "failed")
    lines = [
        {(line["split"], line["step"]): line.get("accuracy") for line in read_metrics(file)}
        for file in (tmp_path / "whole/metrics.jsonl", tmp_path / "failed/metrics.jsonl")
    ]
    assert lines[0] == lines[1] and ("test", 4) in lines[0]


def test_a_damaged_newest_checkpoint_is_survived(tiny, finished, copied, capsys):
    newest = copied / "checkpoints" / "12"
    victim = max((f for f in newest.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:100])
    assert training.train(tiny(epochs=3), str(copied), ONE) == 0
    message = capsys.readouterr().err
    assert "set aside as" in message and "Resuming" in message
    assert (copied / "checkpoints" / "damaged-12").is_dir()
    assert_same_bits(final_state(copied), final_state(finished))


def test_latest_and_best_are_kept(finished):
    kept = Checkpoints(finished / "checkpoints", read_only=True, best_metric="accuracy")
    assert kept.latest_step() == 12 and 2 <= len(kept.all_steps()) <= 3
    best = kept.metrics(kept.best_step())["accuracy"]
    evaluated = [
        line["accuracy"]
        for line in read_metrics(finished / "metrics.jsonl")
        if line["split"] == "test"
    ]
    assert best == max(evaluated)


def test_another_config_in_the_same_directory_is_refused_and_nothing_changes(tiny, finished):
    before = {f: f.stat().st_mtime_ns for f in finished.rglob("*")}
    with pytest.raises(RunDirError, match=r"coded\.mu: 6\.0 in the run, 3\.0 given"):
        training.train(tiny(**{"coded.mu": 3.0, "epochs": 3}), str(finished), ONE)
    assert before == {f: f.stat().st_mtime_ns for f in finished.rglob("*")}


def test_a_run_that_lacks_only_its_summary_needs_no_space(tiny, copied, monkeypatch):
    (copied / "summary.json").unlink()
    monkeypatch.setattr(disk, "free", lambda directory: 0)
    assert training.train(tiny(epochs=3), str(copied), ONE) == 0
    assert (copied / "summary.json").exists()
    with pytest.raises(CheckpointError, match="0 MB are free on the disk.*no older one"):
        training.train(tiny(), str(copied.with_name("another")), ONE)


def test_a_step_that_is_not_finite_stops_the_run_with_its_name(tiny, tmp_path):
    config = tiny(**{"optimizer.learning_rate": 1e30, "log.every_steps": 1, "epochs": 2})
    with pytest.raises(TrainingError, match=r"update of step \d+ was not finite \(.*parameters"):
        training.train(config, str(tmp_path), ONE)
    steps = Checkpoints(tmp_path / "checkpoints", read_only=True).all_steps()
    assert steps == []


def test_evaluation_reads_a_run_and_writes_nothing(finished, capsys):
    before = {f: f.stat().st_mtime_ns for f in finished.rglob("*")}
    summary = json.loads((finished / "summary.json").read_text())
    capsys.readouterr()
    assert main.main(["main", "--mode=eval", f"--workdir={finished}"]) == 0
    printed, _, words = capsys.readouterr().out.partition("\n\n")
    table = dict(line.split()[:2] for line in printed.splitlines())
    assert float(table["accuracy"]) == pytest.approx(summary["test_accuracy"], abs=1e-3)
    with (finished / "confusion.csv").open() as file:
        rows = list(csv.DictReader(file))
    counts = np.array([[int(row[name]) for name in list(row)[1:]] for row in rows])
    assert counts.shape == (10, 10) and counts.sum() == summary["test_examples"]
    assert np.trace(counts) == round(summary["test_accuracy"] * counts.sum())
    with (finished / "per_class.csv").open() as file:
        classes = list(csv.DictReader(file))
    assert [int(row["images"]) for row in classes] == counts.sum(1).tolist()
    assert words.strip() == confusion.words(counts, [row["class"] for row in classes])
    assert "confusion" not in read_metrics(finished / "metrics.jsonl")[-1]
    assert summary["averaged_weights"] is False
    averaged = "--config.ema.decay=0.9"
    assert main.main(["main", "--mode=eval", f"--workdir={finished}", averaged]) == 2
    assert "the run kept no running averages" in capsys.readouterr().err
    assert before == {f: f.stat().st_mtime_ns for f in finished.rglob("*")}


def test_evaluation_on_another_data_set(name_classes, copied, capsys):
    name_classes(copied, list("0123456789"))  # as if the made-up images were digits
    command = ["main", "--mode=eval", f"--workdir={copied}"]
    digits = [*command, "--config.data.name=digits"]
    assert main.main(digits) == 0
    assert "digits/test at step 12" in capsys.readouterr().out
    assert main.main([*digits, "--config.eval.split=validation", "--checkpoint=best"]) == 0
    printed = capsys.readouterr().out.partition("\n\n")[0]
    found = dict(line.split()[:2] for line in printed.splitlines())
    # Normalised as the run's own images were, not by the statistics of the other set.
    config = RunDir(copied, write=False).config()
    config.data.name, config.eval.split = "digits", "validation"
    run = load_run(copied, config=config, devices=ONE)
    setup, state = run.setup, run.state
    images = (setup.dataset.split("validation").images / 255 - 0.5) / 0.25
    logits = setup.family.model.apply(state.variables, images.astype(np.float32)).logits
    right = np.argmax(logits, 1) == setup.dataset.split("validation").labels
    assert float(found["accuracy"]) == pytest.approx(float(right.mean()), abs=1e-3)
    assert main.main([*digits, "--checkpoint=999"]) == 2
    assert "no checkpoint of step 999" in capsys.readouterr().err
    assert main.main([*command, "--config.data.name=cifar100"]) == 2
    assert "10 classes of fake; cifar100 has 100" in capsys.readouterr().err
    assert main.main([*command, "--config.data.name=cifar10"]) == 2
    assert "shape (8, 8, 1); those of cifar10 are (8, 8, 3)" in capsys.readouterr().err


def test_exact_evaluation_does_not_depend_on_the_batch(tiny, finished):
    config = tiny(epochs=3)
    found = []
    for batch in (16, 5, 64):
        config.eval.batch_size = batch
        run = load_run(finished, config=config, devices=ONE)
        setup, state = run.setup, run.state
        evaluator = Evaluator(setup.family, 0)
        found.append(evaluator(state.variables, state.extra, setup.evaluation_input("test")))
    for other in found[1:]:
        assert other["accuracy"] == found[0]["accuracy"]
        assert np.array_equal(other["confusion"], found[0]["confusion"])
        assert other["cross_entropy"] == pytest.approx(found[0]["cross_entropy"], rel=1e-5)


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

"""Whole runs on streamed images: counted faults, resuming, signals, and what they leave behind."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import pytest
from run_states import assert_same_bits, final_state

from branchnets.engine import config as configs
from branchnets.engine import train as training
from branchnets.engine.records.logging import read_metrics
from branchnets.engine.runs import load_run
from branchnets.engine.saving.checkpoint import Checkpoints
from branchnets.engine.stopping import PREEMPTED
from branchnets.errors import DataError

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "data"))
from jpeg_tree import left_in_memory, shared_memory, write_tree  # noqa: E402

ONE = jax.devices()[:1]
CONFIG = "configs/resnext_digits.py:smoke"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Four classes, 12 training and 3 test images each."""
    root = tmp_path_factory.mktemp("tree")
    for split, count, seed in (("train", 12, 0), ("test", 3, 100)):
        write_tree(root / split, ("ant", "bee", "cat", "dog"), count, seed)
    return root


def overrides(tree, **fields):
    return {
        "data.name": "folder", "data.data_dir": str(tree), "data.stream": True,
        "data.image_size": 8, "data.channels": 1, "data.num_classes": None, "data.fake_size": None,
        "data.workers": 0, "augment.crop_area": (0.3, 1.0), "batch_size": 8, "bn_group_size": 4,
        "epochs": 2, "log.every_steps": 1, "checkpoint.every_epochs": 2,
    } | fields  # fmt: skip


def config_of(tree, **fields):
    return configs.apply_overrides(configs.load(str(ROOT / CONFIG)), overrides(tree, **fields))


def newest(workdir):
    return max(Checkpoints(workdir / "checkpoints", read_only=True).all_steps(), default=None)


@pytest.mark.slow
def test_images_in_a_bucket_train_the_same_network(tree, gcs, tmp_path):
    """Worker processes read them, each of which opens the bucket anew."""
    for file in tree.rglob("*.jpg"):
        gcs.put(f"tree/{file.relative_to(tree).as_posix()}", file.read_bytes())
    states = []
    for number, place in enumerate((tree, "gs://bucket/tree")):
        config = config_of(place, **{"data.workers": 2, "epochs": 1})
        assert training.train(config, str(tmp_path / str(number)), ONE) == 0
        states.append(final_state(tmp_path / str(number)))
    assert_same_bits(*states)


def test_images_that_cannot_be_read_end_a_run_or_are_passed_over(tree, tmp_path, capsys):
    """One run of two epochs of six steps, which ends twice and goes on."""
    broken, workdir = tmp_path / "tree", tmp_path / "run"
    shutil.copytree(tree, broken)
    trained, tested = broken / "train" / "cat" / "3.jpg", broken / "test" / "bee" / "1.jpg"
    whole = tested.read_bytes()
    tested.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"test/bee/1\.jpg"):
        training.train(config_of(broken), str(workdir), ONE)
    assert newest(workdir) == 6  # what was trained before it is saved

    tested.write_bytes(whole)
    trained.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"train/cat/3\.jpg.*cannot|no image that can be read"):
        training.train(config_of(broken), str(workdir), ONE)
    done = [line["step"] for line in read_metrics(workdir / "metrics.jsonl")]
    assert newest(workdir) == done[-1] > 6

    tested.write_bytes(b"no image")
    config = config_of(broken, **{"data.on_error": "skip"})
    capsys.readouterr()
    assert training.train(config, str(workdir), ONE) == 0
    error = capsys.readouterr().err
    assert error.count("train/cat/3.jpg") == error.count("test/bee/1.jpg") == 1
    lines = read_metrics(workdir / "metrics.jsonl")
    assert sum(line["unreadable"] for line in lines if line["split"] == "train") == 1
    assert [line.get("unreadable", 0) for line in lines if line["split"] == "test"] == [0, 1]
    # Told of what is evaluated alone as well, and left out of what is counted.
    run = load_run(workdir, config=config, devices=ONE)
    assert run.evaluate(track=lambda batches, *_: iter(list(batches)))["unreadable"] == 1
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["test_examples"] == 11 and summary["test"]["unreadable"] == 1

    # Resumed (there is nothing left to do) where images are decoded by something else.
    saved = json.loads((workdir / "config.json").read_text())
    assert saved["resolved"]["data"]["decoder"] in ("opencv", "pillow")
    saved["resolved"]["data"]["decoder"] = "another"
    (workdir / "config.json").write_text(json.dumps(saved))
    assert training.train(config, str(workdir), ONE) == 0
    assert "were decoded by another, and now are by" in capsys.readouterr().err


def start(workdir, tree, **fields):
    given = overrides(
        tree, **{"data.workers": 2, "epochs": 6, "checkpoint.every_epochs": 1}, **fields
    )
    command = [
        sys.executable, "-m", "branchnets.main", f"--config={CONFIG}", f"--workdir={workdir}",
        *(f"--config.{name}={value}" for name, value in given.items() if value is not None),
    ]  # fmt: skip
    return subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "XLA_FLAGS": ""}, text=True, start_new_session=True,
        stderr=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip


def members(session):
    """Processes of a session that still run."""
    found = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def stopped(process, number, workdir, steps):
    """Sends a signal to the trainer and all its workers once so many lines are written."""
    metrics = workdir / "metrics.jsonl"
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        if metrics.exists() and len(metrics.read_text().splitlines()) > steps:
            break
        time.sleep(0.02)
    if number == signal.SIGKILL:
        process.kill()  # of the trainer alone: its workers have to notice
    else:
        os.killpg(process.pid, number)
    _, error = process.communicate(timeout=200)
    return error


def assert_quiet(error):
    """Workers that end say nothing."""
    for noise in ("Traceback", "leaked", "Exception", "died"):
        assert noise not in error, error


@pytest.mark.slow
def test_stopped_runs_leave_nothing_behind_and_end_as_if_they_had_not_been(tree, tmp_path):
    shared = shared_memory()
    whole = start(tmp_path / "whole", tree)
    _, error = whole.communicate(timeout=300)
    assert whole.returncode == 0, error
    assert_quiet(error)
    other = tmp_path / "stopped"
    for number, status, steps in (
        (signal.SIGTERM, PREEMPTED, 5),
        (signal.SIGKILL, -signal.SIGKILL, 16),
    ):
        process = start(other, tree)
        error = stopped(process, number, other, steps)
        assert process.returncode == status, error
        if number != signal.SIGKILL:
            assert_quiet(error)
        deadline = time.monotonic() + 20
        while members(process.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not members(process.pid) and not left_in_memory(shared)
    last = start(other, tree)
    _, error = last.communicate(timeout=300)
    assert last.returncode == 0, error
    one, two = (final_state(path) for path in (tmp_path / "whole", other))
    assert one.step == 36
    assert_same_bits(one, two)

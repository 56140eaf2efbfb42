"""Whole runs at gs:// by the command line: stopped, killed in a save, gone on with, evaluated."""

from __future__ import annotations

import re
import signal
import threading

import jax
import numpy as np
import pytest
from engine_commands import Command, assert_same_run
from gcs_server import Refusal
from ml_collections import ConfigDict
from PIL import Image

from branchnets import storage
from branchnets.engine import transfer
from branchnets.engine.runs import load_run
from branchnets.engine.setup import prepare
from branchnets.errors import ConfigError
from branchnets.main import main
from branchnets.tools import analyze, predict, slim, table

pytestmark = pytest.mark.slow

EPOCHS = 1  # of 64 steps


def download(url, folder):
    """A copy of a run directory on the disk."""
    for name, file in storage.as_path(url).walk().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(file.read_bytes())
    return folder


def begin(url, **options):
    return Command(url, EPOCHS, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run on a disk that nobody stops."""
    run = Command(tmp_path_factory.mktemp("whole") / "run", EPOCHS)
    assert run.end() == 0, run.error
    return run.workdir


def test_a_run_that_is_stopped_and_killed_equals_the_one_on_a_disk(whole, gcs, tmp_path):
    url, name = "gs://bucket/runs/stopped", "runs/stopped"
    # Stopped by the signal that a scheduler sends, in the middle of an interval.
    run, saved = begin(url), threading.Event()

    def look(method, asked):
        if (method, asked) == ("UPLOAD", f"{name}/checkpoints/20/commit_success.txt"):
            saved.set()

    gcs.before = look
    assert saved.wait(120), run.error
    run.process.send_signal(signal.SIGTERM)
    assert run.end() == 75, run.error
    lines = storage.as_path(url) / "metrics.jsonl"
    assert lines.exists() and not (storage.as_path(url) / ".lock").exists()

    # Killed when the state of a save is there and the list of its files is not.
    run, killed = begin(url), []
    before = gcs.names(f"{name}/checkpoints/")

    def kill(method, asked):
        if method == "UPLOAD" and asked.endswith("/default/commit_success.txt") and not killed:
            killed.append(asked)
            run.process.send_signal(signal.SIGKILL)
            run.process.wait()

    gcs.before = kill
    assert run.end() == -signal.SIGKILL, run.error
    gcs.before = lambda method, asked: None
    (torn,) = killed
    step = torn.split("/")[-3]
    assert gcs.names(f"{name}/checkpoints/{step}/default/") and torn not in before
    assert (storage.as_path(url) / ".lock").exists()

    run = begin(url)
    resumed = run.resumed()
    assert 20 <= resumed < int(step)
    assert "was not closed by process" in run.error and "damaged" not in run.error
    assert run.end() == 0, run.error
    assert_same_run(whole, download(url, tmp_path / "copy"))


def test_a_run_goes_on_without_one_save_and_can_be_started_again_after_two(gcs):
    def refuse(method, asked):
        step = re.search(r"/checkpoints/(\d+)/", asked)
        if step and method == "POST" and not 40 <= int(step[1]) < 60:
            raise Refusal(403)

    gcs.before = refuse
    run = begin("gs://bucket/runs/refused")
    status, messages = run.end(), run.error
    assert status == 75, messages
    assert "could not be written" in messages and "Going on, without a checkpoint of" in messages
    assert [p.name for p in storage.as_path(run.workdir + "/checkpoints").iterdir()] == ["40"]


@pytest.fixture(scope="module")
def finished(whole, gcs_process):
    """The run of the disk, copied into the bucket."""
    gcs_process.before = lambda method, name: None
    for file in whole.rglob("*"):
        if file.is_file() and file.name != ".lock":
            path = f"runs/finished/{file.relative_to(whole).as_posix()}"
            gcs_process.put(path, file.read_bytes())
    return "gs://bucket/runs/finished"


def test_a_run_or_weights_to_begin_with(finished, gcs):
    run = load_run(finished)
    file = "gs://bucket/weights/some.safetensors"
    run.save_weights(file)
    setup = prepare(run.config, jax.devices()[:1])
    read = [
        transfer.read_source(ConfigDict({"source": source, "checkpoint": "latest"}), setup)
        for source in (finished, file)
    ]
    setup.inputs.close()
    assert read[0].record["step"] == run.step and read[0].class_names is not None
    assert read[0].arrays.keys() >= read[1].arrays.keys() > set()
    for name, array in read[1].arrays.items():
        np.testing.assert_array_equal(array, read[0].arrays[name])
    with pytest.raises(ConfigError, match="gs://bucket/nothing is neither a run directory"):
        nothing = ConfigDict({"source": "gs://bucket/nothing", "checkpoint": "latest"})
        transfer.read_source(nothing, setup)


def test_evaluation_and_tools(finished, gcs, whole, tmp_path, capsys):
    before = gcs.names()
    assert main(["branchnets.main", "--mode=eval", f"--workdir={finished}"]) == 0
    assert gcs.names() == before
    capsys.readouterr()
    assert table.main([finished, str(whole)]) == 0
    assert "0, 0" in capsys.readouterr().out  # one row, of two runs
    assert analyze.main([f"--workdir={finished}", "--only=classes", f"--beside={finished}"]) == 0
    assert "report: gs://bucket/runs/finished/report/index.html" in capsys.readouterr().out
    assert "runs/finished/report/report.json" in gcs.names()
    assert slim.main([f"--workdir={finished}", "--class=3", "--out=gs://bucket/runs/three"]) == 0
    image = storage.as_path("gs://bucket/images/one.png")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "one.png")
    image.write_bytes((tmp_path / "one.png").read_bytes())
    capsys.readouterr()
    assert predict.main(["gs://bucket/runs/three", str(image), str(tmp_path / "one.png")]) == 0
    one, other = capsys.readouterr().out.splitlines()
    assert one.split()[1:] == other.split()[1:]
    assert slim.main([f"--workdir={finished}", "--class=3", f"--out={finished}"]) == 2
    assert "is not empty and holds no network" in capsys.readouterr().err

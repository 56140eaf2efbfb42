"""Sweeps whose runs are in a bucket, while logs, table and report are on a disk."""

import json
import pathlib
import shutil

from gcs_server import Refusal

from branchnets import storage
from branchnets.sweeps import run
from branchnets.tools import sweep

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


def test_what_is_finished_is_listed_and_drawn(make_grid, finish, gcs, tmp_path, capsys):
    runs = storage.as_path("gs://bucket/sweeps/drawn")
    grid = make_grid("coded_digits.py:smoke", "mu:1,2,3")
    for cell, accuracy in zip(grid.cells[:2], (0.5, 0.75), strict=True):
        finish(cell, runs, accuracy, {"binary/f1": 0.25})
    words = [
        f"--config={CONFIGS}/coded_digits.py:smoke",
        f"--out={tmp_path}",
        f"--runs={runs}",
        "--set=mu:1,2,3",
    ]
    assert sweep.main([*words, "--dry_run"]) == 0
    listed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert listed[:3] == [["mu=1", "finished"], ["mu=2", "finished"], ["mu=3"]]
    before = gcs.names()
    assert sweep.main([*words, "--draw_only"]) == 0
    assert "| 2 | 0 | 0.7500 | 0.2500 |" in capsys.readouterr().out
    assert (tmp_path / "report" / "index.html").is_file() and gcs.names() == before
    record = json.loads((tmp_path / "report" / "report.json").read_text())
    assert record["header"]["runs"] == "gs://bucket/sweeps/drawn"
    assert sweep.main([*words, "--draw_only", "--config.batch_size=16"]) == 2
    error = capsys.readouterr().err
    assert "gs://bucket/sweeps/drawn/mu=1 holds a run with another config" in error


def test_what_lies_in_the_folder_is_not_trained_again_elsewhere(
    finish, make_grid, tmp_path, capsys
):
    out, runs = tmp_path / "out", tmp_path / "runs"
    for cell in make_grid("coded_digits.py:smoke", "mu:1,2").cells:
        finish(cell, out, cell.config.coded.mu / 4)
    words = [f"--config={CONFIGS}/coded_digits.py:smoke", f"--out={out}", "--set=mu:1,2,3"]
    assert sweep.main([*words, f"--runs={runs}"]) == 2
    error = capsys.readouterr().err
    assert f"{out} holds runs that would be trained again in {runs}: mu=1, mu=2." in error
    assert not runs.exists()
    shutil.copytree(out, runs)
    assert sweep.main([*words, f"--runs={runs}", "--draw_only"]) == 0
    assert "| 2 | 0 | 0.5000 |" in capsys.readouterr().out


def test_a_service_that_fails_is_told_and_the_others_go_on(make_grid, finish, gcs, tmp_path):
    runs, said = storage.as_path("gs://bucket/sweeps/failing"), []
    cells = make_grid("coded_digits.py:smoke", "mu:1,2").cells
    for cell in cells:
        finish(cell, runs, 0.5)

    def refuse(method, name):
        if name.startswith("sweeps/failing/mu=1/summary.json") or not name:
            raise Refusal(403)

    gcs.before = refuse
    runner = run.Runner(tmp_path, lambda cell: run.stages(cell, runs, False), say=said.append)
    outcome = runner(cells)
    assert (outcome.failed, outcome.status) == (["mu=1"], None)
    assert said[0].startswith("[1/2] mu=1: FAILED") and "cannot be read" in said[0]
    assert said[1:] == ["[2/2] mu=2: done before"]

"""The command line of sweeps, with runs of a few steps."""

import json
import pathlib

import pytest

from branchnets.tools import sweep

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
SMOKE = f"--config={CONFIGS / 'coded_digits.py'}:smoke"


def test_a_dry_run_lists_the_cells_and_writes_nothing(tmp_path, capsys):
    out = tmp_path / "sweep"
    words = [SMOKE, f"--out={out}", "--set=mu:1,2,4", "--seeds=2", "--shard=1/4", "--dry_run"]
    assert sweep.main(words) == 0
    assert capsys.readouterr().out.split("\n")[:3] == [
        "mu=2,seed=0", "mu=4,seed=1", "2 of 6 cells",
    ]  # fmt: skip
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set=mu2:1"], "Did you mean 'mu'"),
        (["--shard=4/4"], "I from 0 to N-1"),
        (["--shard=1"], "I from 0 to N-1"),
        (["--jobs=0"], "at least 1"),
        (["--config.coded.nu=1"], "Did you mean 'coded.mu'"),
        (["--runs=gs://"], "names no bucket"),
        (["--runs="], "--runs is empty"),
        (["--runs=http://host/sweep"], "Give gs://BUCKET/FOLDER"),
    ],
)
def test_bad_words(tmp_path, capsys, words, message):
    assert sweep.main([SMOKE, f"--out={tmp_path / 'sweep'}", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
    assert not (tmp_path / "sweep").exists()


def test_logs_and_table_stay_on_a_disk(capsys):
    with pytest.raises(SystemExit, match="2"):
        sweep.main([SMOKE, "--out=gs://bucket/sweep"])
    assert "For the runs alone: --runs=gs://bucket/sweep" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        sweep.main([SMOKE, "--out=http://host/sweep"])
    assert "For the runs alone: --runs=gs://BUCKET/DIR" in capsys.readouterr().err


def test_nothing_to_draw_is_said(tmp_path, capsys):
    assert sweep.main([SMOKE, f"--out={tmp_path}", "--set=mu:1", "--draw_only"]) == 0
    assert "nothing to draw" in capsys.readouterr().err


@pytest.mark.slow
def test_a_sweep_from_start_to_report_and_again(tmp_path, capsys):
    words = [SMOKE, f"--out={tmp_path}", "--set=mu:1,2", "--config.model.drop_rate=0.2"]
    assert sweep.main(words) == 0
    printed = capsys.readouterr().out
    assert "| mu | seeds |" in printed and "Report: " in printed
    for mu in (1, 2):
        folder = tmp_path / f"mu={mu}"
        config = json.loads((folder / "config.json").read_text())["raw"]
        assert (config["coded"]["mu"], config["model"]["drop_rate"]) == (mu, 0.2)
        merits = json.loads((folder / "merits.json").read_text())
        assert merits["step"] == json.loads((folder / "summary.json").read_text())["steps"]
        assert 0 <= merits["merits"]["binary/f1"] <= 1
    assert (tmp_path / "report" / "fig5_mu.png").is_file()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("mu=*/*.json")}
    assert sweep.main(words) == 0
    assert capsys.readouterr().out.count("done before") == 2
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("mu=*/*.json")}
    assert sweep.main([*words, "--config.coded.exponent=2"]) == 2
    assert "coded.exponent: 4.0 in the run, 2.0 given" in capsys.readouterr().err


@pytest.mark.slow
def test_cells_are_trained_into_a_bucket(tmp_path, gcs, capsys):
    words = [SMOKE, f"--out={tmp_path}", "--runs=gs://bucket/sweeps/a", "--set=mu:1", "--seeds=1"]
    assert sweep.main(words) == 0, capsys.readouterr()
    assert "| 1 | 0 |" in capsys.readouterr().out
    assert "sweeps/a/mu=1,seed=0/merits.json" in gcs.names()
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["logs", "report", "table.md"]
    assert sweep.main(words) == 0
    assert "done before" in capsys.readouterr().out

"""Finished runs as one table."""

import json

import pytest

from branchnets.tools import table


@pytest.fixture
def runs(tmp_path):
    def add(name, seed, accuracy, mu=6.0, **more):
        folder = tmp_path / name
        folder.mkdir()
        raw = {"seed": seed, "coded": {"mu": mu}}
        (folder / "config.json").write_text(json.dumps({"raw": raw}))
        summary = {
            "model": "net", "dataset": "digits", "seed": seed, "test_accuracy": accuracy,
            "environment": {"source": {"commit": "0123456789"}}, **more,
        }  # fmt: skip
        (folder / "summary.json").write_text(json.dumps(summary))
        return str(folder)

    return add


def test_seeds_share_a_row_and_other_configs_do_not(runs, capsys):
    folders = [runs("a", 0, 0.5), runs("b", 1, 0.7), runs("c", 0, 0.9, mu=1.0, early={"x": 0.25})]
    assert table.main([*folders, "--metric=test_accuracy", "--metric=early/x"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "| net | digits | 0, 1 | 0.6000 ± 0.1414 | – | 0123456 |"
    assert lines[3] == "| net | digits | 0 | 0.9000 | 0.2500 | 0123456 |"


def test_what_is_missing_is_said(runs, capsys, tmp_path):
    folder = runs("a", 0, 0.5)
    assert table.main([folder, "--metric=test_acuracy"]) == 2
    assert "Did you mean 'test_accuracy'" in capsys.readouterr().err
    (tmp_path / "a" / "summary.json").unlink()
    assert table.main([folder]) == 2
    assert "summary.json is missing" in capsys.readouterr().err

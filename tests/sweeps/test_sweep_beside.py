"""Which finished runs are found in folders that a person names."""

import json
import shutil

import pytest

from branchnets.errors import UserError
from branchnets.sweeps.beside import gather


@pytest.fixture
def cells(make_grid, finish, tmp_path):
    """Four finished cells of a sweep in a folder of its own, beside other things."""
    grid = make_grid("coded_digits.py", "mu:1,2", seeds=2)
    for number, cell in enumerate(grid.cells):
        finish(cell, tmp_path / "study" / "sweep", number / 10)
    (tmp_path / "study" / "notes").mkdir()
    (tmp_path / "study" / "sweep" / ".cache" / "x").mkdir(parents=True)
    shutil.copytree(
        tmp_path / "study" / "sweep" / grid.cells[0].name,
        tmp_path / "study" / "sweep" / ".cache" / "hidden",
    )
    return tmp_path


def test_runs_are_found_some_levels_down_in_the_order_of_their_names(cells):
    found = gather([cells])
    assert [run.name for run in found] == [
        "mu=1,seed=0", "mu=1,seed=1", "mu=2,seed=0", "mu=2,seed=1",
    ]  # fmt: skip
    first = found[0]
    assert first.config["coded.mu"] == 1.0 and first.config["seed"] == 0
    assert first.figures["test_accuracy"] == 0.0 and first.figures["commit"] == "0123456789"
    assert gather([]) == ()


def test_a_run_that_is_named_twice_or_copied_counts_once(cells):
    sweep = cells / "study" / "sweep"
    shutil.copytree(sweep / "mu=1,seed=0", cells / "copy")
    shutil.copytree(sweep / "mu=1,seed=0", cells / "other")
    path = cells / "other" / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "test_accuracy": 0.9}))
    found = gather([sweep / "mu=2,seed=0", sweep, cells / "copy", cells / "other"])
    assert [run.name for run in found] == [
        "mu=2,seed=0", "mu=1,seed=0", "mu=1,seed=1", "mu=2,seed=1", "other",
    ]  # fmt: skip


def test_what_lies_too_deep_is_not_found(cells):
    deep = cells / "a" / "b" / "c"
    deep.parent.mkdir(parents=True)
    shutil.move(cells / "study", deep)
    assert len(gather([deep])) == 4
    with pytest.raises(UserError, match="none lies up to 3 levels below"):
        gather([cells])


def test_folders_that_hold_no_finished_run_are_told_what_to_do(cells):
    with pytest.raises(UserError, match="--beside=nowhere: there is no such folder; name a run"):
        gather(["nowhere"])
    with pytest.raises(UserError, match="no run directory.*tools.sweep wrote runs to"):
        gather([cells, cells / "study" / "notes"])
    (cells / "study" / "sweep" / "mu=1,seed=0" / "summary.json").unlink()
    assert len(gather([cells])) == 3  # the others do
    with pytest.raises(UserError, match=r"none of its runs \(mu=1,seed=0\) is finished.*again"):
        gather([cells / "study" / "sweep" / "mu=1,seed=0"])


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"environment": 3}'])
def test_a_damaged_summary_is_told(cells, text):
    (cells / "study" / "sweep" / "mu=1,seed=0" / "summary.json").write_text(text)
    with pytest.raises(UserError, match="mu=1,seed=0: its config.json or summary.json is damaged"):
        gather([cells])

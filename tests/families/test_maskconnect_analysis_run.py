"""From training to a report and a sweep's figures, by the command lines."""

import json
import pathlib
from xml.etree import ElementTree

import pytest

from branchnets.engine import config as configs
from branchnets.engine.train import train
from branchnets.sweeps import grid, report
from branchnets.sweeps.fields import Source
from branchnets.tools import analyze

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "maskconnect_digits.py"
SMOKE = f"{CONFIG}:smoke"


@pytest.fixture
def small_run(tmp_path):
    """A run of two steps: one that learns the masks, one after they are frozen."""
    folder = tmp_path / "runs" / "small"
    config = configs.load(SMOKE, {"model.fan_in": 1, "log.every_steps": 1})
    assert train(config, folder) == 0
    return folder


@pytest.mark.slow
def test_a_trained_run_can_be_seen(small_run, capsys):
    assert analyze.main([f"--workdir={small_run}", f"--beside={small_run.parent}"]) == 0
    printed = capsys.readouterr()
    assert "active_share" in printed.out and "Traceback" not in printed.err
    out = small_run / "report"
    files = {path.name for path in out.iterdir()}
    assert files >= {
        "fig3_connectivity.png", "fig3_connectivity.svg", "fig4_active_branches.png",
        "mask_evolution.png", "connections.csv", "active_branches.csv", "runs_compared.csv",
        "table1_cifar100.csv", "table2_imagenet.csv", "table3_cifar10.csv",
        "table4_miniimagenet.csv",
    }  # fmt: skip
    tree = ElementTree.parse(out / "fig3_connectivity.svg")
    ids = [element.get("id", "") for element in tree.iter()]
    assert sum(name.startswith("branch:") for name in ids) == 3 * 4
    sections = json.loads((out / "report.json").read_text())["sections"]
    summary = json.loads((small_run / "summary.json").read_text())
    active = sections["Active branches"]
    assert active["active_branches"] == summary["active_branches"]
    assert active["parameters_after_pruning"] == summary["parameters_after_pruning"]
    assert sections["Connectivity"]["state"] == "frozen"
    assert sections["Runs compared"]["runs"] == 1


def test_the_sweep_of_the_family_is_its_paper_s(tmp_path):
    found = grid.make(Source(str(CONFIG)))
    names = [cell.name for cell in found.cells]
    assert names == [
        "base", "k=1", "k=2", "k=3", "k=5", "k=6", "k=7", "k=8", "connectivity=random",
        "connectivity=full", "connectivity=real", "connectivity=ones",
        f"aggregate={'mean' if found.base.model.aggregate == 'sum' else 'sum'}",
    ]  # fmt: skip
    assert not found.has_merits


def test_fan_in_is_drawn_as_figure_2(tmp_path):
    found = grid.make(
        Source(
            str(CONFIG), ("--config.model.name=maskconnect20_w4_c8", "--config.data.name=cifar10")
        ),
        ["k:1,4"],
    )
    for cell in found.cells:
        folder = tmp_path / cell.name
        folder.mkdir()
        raw = {"raw": configs.plain(cell.config), "resolved": {}}
        (folder / "config.json").write_text(json.dumps(raw))
        summary = {
            "seed": 0, "steps": 10, "seconds": 60.0, "test_accuracy": 0.9, "active_share": 0.5,
            "parameters_after_pruning": 200_000, "environment": {"source": {"commit": "0123456"}},
        }  # fmt: skip
        (folder / "summary.json").write_text(json.dumps(summary))
    report.write(found, tmp_path, {})
    assert (tmp_path / "report" / "fig2_fan_in.png").is_file()
    table = (tmp_path / "report" / "sweep_points.csv").read_text().splitlines()
    assert table[0].startswith("k,seeds,test_accuracy,active_share,parameters_after_pruning")
    assert "paper: test_accuracy" in table[0] and "0.9276" in table[2]

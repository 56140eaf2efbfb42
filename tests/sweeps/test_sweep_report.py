"""The report of a sweep, from runs that nobody trained."""

import csv
import json
import shutil
import threading

import pytest

from branchnets.sweeps import collect, draw, report, results


def early(value):
    return {f"stage{s}/block0": value for s in (3, 4)}


@pytest.fixture
def swept(make_grid, finish, tmp_path):
    """Fills the cells of a grid but for the named ones; accuracy by cell."""

    def make(file, *texts, seeds=None, without=(), accuracy=lambda cell: 0.5, merits=None):
        grid = make_grid(file, *texts, seeds=seeds)
        for cell in grid.cells:
            if cell.name not in without:
                own = merits or {"binary/f1": 0.75, "binary/average_precision": 0.5}
                finish(cell, tmp_path, accuracy(cell), own, early_decoding_accuracy=early(0.25))
        return grid

    return make


def rows(folder, name):
    with (folder / "report" / f"{name}.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_the_report_of_a_partly_finished_grid(swept, tmp_path):
    grid = swept(
        "coded_digits.py", seeds=2, without=("mu=8,seed=0", "mu=8,seed=1", "mu=1,seed=1"),
        accuracy=lambda cell: 0.5 + 0.25 * cell.seed + cell.config.coded.mu / 100,
    )  # fmt: skip
    page = report.write(grid, tmp_path, {"config": "coded_digits.py"})
    assert page == tmp_path / "report" / "index.html"
    files = {path.name for path in page.parent.iterdir()}
    assert files >= {
        "fig5_mu.png", "fig6_p_drop.png", "ablation_exponent.png", "ablation_aggregate.png",
        "ablation_normalize.png", "ablation_block_gradients.png", "sweep_points.csv",
        "sweep_cells.csv", "report.json",
    }  # fmt: skip
    by_mu = {row["mu"]: row for row in rows(tmp_path, "sweep_points") if row["p_drop"] == "0.1"}
    assert by_mu["2"]["test_accuracy"] == "0.6450 ± 0.1768"  # 0.52 and 0.77
    assert by_mu["2"]["seeds"] == "0, 1"
    assert by_mu["1"]["test_accuracy"] == "0.5100" and by_mu["1"]["seeds"] == "0"
    assert by_mu["8"]["test_accuracy"] == by_mu["8"]["commit"] == ""
    assert by_mu["2"]["binary/f1"] == "0.7500 ± 0.0000"
    markdown = (tmp_path / report.TABLE).read_text().splitlines()
    assert markdown[0].startswith("| mu | p_drop | exponent |")
    (missing,) = [line for line in markdown if line.startswith("| 8 |")]
    assert missing.endswith("| – | – | – | – | – | – | – | – |")
    assert len(rows(tmp_path, "sweep_cells")) == len(grid.cells)
    record = json.loads((tmp_path / "report" / "report.json").read_text())
    (line,) = record["sections"]["Varied: mu"].values()
    assert line["2"]["test_accuracy"]["mean"] == pytest.approx(0.645)
    assert line["2"]["test_accuracy"]["seeds"] == 2 and line["8"] == {}
    assert record["header"]["cells"] == "23 of 26 finished"


def test_nothing_is_written_while_no_cell_is_finished(make_grid, tmp_path):
    assert report.write(make_grid("coded_digits.py", "mu:1,2"), tmp_path, {}) is None
    assert list(tmp_path.iterdir()) == []


def test_shards_that_end_together_take_turns(swept, tmp_path, monkeypatch):
    """This one has seen half of the cells when another one comes with all of them."""
    grid = swept("coded_digits.py", "mu:2,8", without=("mu=8",))
    other = threading.Thread(target=report.write, args=(grid, tmp_path, {}))
    original, written = collect.collect, []

    def slow(cells, out):
        found = original(cells, out)
        if threading.current_thread() is not other:
            shutil.copytree(tmp_path / "mu=2", tmp_path / "mu=8")
            other.start()
            other.join(0.5)  # it does not end: it waits
        return found

    monkeypatch.setattr(collect, "collect", slow)
    monkeypatch.setattr(report, "write_report", lambda *args: written.append(args[-1]["cells"]))
    report.write(grid, tmp_path, {})
    other.join()
    assert written == ["1 of 2 finished", "2 of 2 finished"]


def test_the_paper_s_numbers_stand_beside_its_network_and_data_alone(swept, tmp_path):
    grid = swept("coded_cifar10.py", "exponent:4,2,1", "p_drop:0,0.1")
    report.write(grid, tmp_path, {})
    printed = {
        (row["exponent"], row["p_drop"]): row["paper: test_accuracy"]
        for row in rows(tmp_path, "sweep_points")
    }
    assert {key: value for key, value in printed.items() if value} == {
        ("4", "0.1"): "0.9441", ("2", "0.1"): "0.931", ("1", "0.1"): "0.871",
    }  # fmt: skip


def test_no_paper_column_on_digits(swept, tmp_path):
    report.write(swept("coded_digits.py", "exponent:4,2"), tmp_path, {})
    assert not any("paper" in name for name in rows(tmp_path, "sweep_points")[0])


def drawn(grid, out, label):
    found = collect.collect(grid.cells, out)
    lines = collect.lines(collect.points(found), label)
    return draw.figures(label, lines, grid.family, found)


def test_one_field_a_line_for_every_figure_of_a_panel(swept, tmp_path):
    grid = swept(
        "coded_digits.py", "mu:4,1,2", accuracy=lambda cell: cell.config.coded.mu / 10, seeds=2
    )
    (figure,) = drawn(grid, tmp_path, "mu")
    assert figure.name == "fig5_mu"
    whole, decoding, binary = figure.drawing.axes
    (line,) = whole.get_lines()[:1]
    assert list(line.get_xdata()) == [1, 2, 4]
    assert list(line.get_ydata()) == pytest.approx([0.1, 0.2, 0.4])
    assert whole.get_xlabel() == "mu" and whole.get_title() == "Whole network"
    names = [text.get_text() for text in decoding.get_legend().get_texts()]
    assert names == ["stage3/block0", "stage4/block0"]
    assert len(binary.get_legend().get_texts()) == 2


def test_a_second_field_is_a_line_for_every_value(swept, tmp_path):
    grid = swept("coded_digits.py", "mu:1,2", "p_drop:0,0.1")
    (figure,) = drawn(grid, tmp_path, "mu")
    for panel in figure.drawing.axes:
        names = [text.get_text() for text in panel.get_legend().get_texts()]
        assert names == ["p_drop = 0", "p_drop = 0.1"]
    assert [panel.get_title() for panel in figure.drawing.axes] == [
        "Whole network", "Early decoding: stage4/block0", "Binary classifiers: f1",
    ]  # fmt: skip
    (other,) = drawn(grid, tmp_path, "p_drop")
    assert other.name == "fig6_p_drop"


def test_a_third_field_is_a_figure_for_every_value(swept, tmp_path):
    grid = swept("coded_digits.py", "mu:1,2", "p_drop:0,0.1", "exponent:4,2")
    names = [figure.name for figure in drawn(grid, tmp_path, "mu")]
    assert names == ["fig5_mu_exponent_4", "fig5_mu_exponent_2"]


@pytest.mark.parametrize(
    ("text", "ticks"),
    [("normalize:true,false", ["true", "false"]), ("aggregate:sum,concat", ["sum", "concat"])],
)
def test_what_is_no_number_is_drawn_as_categories(swept, tmp_path, text, ticks):
    (figure,) = drawn(swept("coded_digits.py", text), tmp_path, text.partition(":")[0])
    panel = figure.drawing.axes[0]
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ticks
    assert panel.get_lines()[0].get_linestyle() == "None"


def test_merits_of_an_older_step_do_not_count(swept, tmp_path):
    (cell,) = swept("coded_digits.py", "mu:1").cells
    assert results.merits(tmp_path / cell.name)["binary/f1"] == 0.75
    file = tmp_path / cell.name / "merits.json"
    file.write_text(json.dumps({"step": 9, "merits": {"binary/f1": 0.75}}))
    assert results.merits(tmp_path / cell.name) == {}
    assert not results.has_merits(tmp_path / cell.name)

"""Reports of real runs: a small network, trained for two steps, of a family made for the test."""

import csv
import dataclasses
import json
import os
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

import branchnets
from branchnets.engine import config as configs
from branchnets.engine.train import train
from branchnets.errors import ConfigError, DataError, ReportError, UserError
from branchnets.families import plain
from branchnets.families.study import Analysis, Option
from branchnets.report import style
from branchnets.report.content import Figure, Section, Table
from branchnets.tools import analyze as tool
from branchnets.tools import classes

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "resnext_digits.py"
SEEN = []  # what the analyses were given


def _logits(family, subject):
    def forward(variables, batch):
        return family.model.apply(variables, batch["image"], train=False).logits

    return forward


def _confidence(family, subject):
    SEEN.append(subject)
    logits = subject.map(_logits(family, subject), "test", "confidence")
    drawing, axes = style.figure(3, 2)
    axes.hist(jax.nn.softmax(logits).max(1))
    style.label(axes, "confidence", "images")
    return Section(
        "Confidence",
        "How sure the network is.",
        (Figure("fig9_confidence", "Largest probability.", drawing),),
        (Table("table9_sizes", "Images.", ("split", "n"), (("test", len(logits)),)),),
        {"mean": float(jax.nn.softmax(logits).max(1).mean()), "bins": subject.options["bins"]},
    )


def _far(family, subject):
    if subject.outside is None:
        return None
    logits = subject.map(_logits(family, subject), subject.outside, "far away")
    return Section("Far away", figures_of_merit={"n": len(logits), "mean": logits.mean(0)})


def _refuse(family, subject):
    if subject.options["refuse"]:
        raise UserError("the analysis says no; do something else.")
    return None


def _check_bins(bins):
    if bins < 1:
        raise UserError(f"bins: from 1, not {bins}")


@dataclasses.dataclass(frozen=True)
class StudyFamily(plain.FAMILY):
    """A plain network that can be studied."""

    def analyses(self):
        bins = Option("bins", 10, "number of bins", check=_check_bins)
        return {
            "confidence": Analysis("Confidence", lambda s: _confidence(self, s), (bins,)),
            "far": Analysis("Far away", lambda s: _far(self, s), (bins,)),
            "strict": Analysis(
                "Strict", lambda s: _refuse(self, s), (Option("refuse", False, "say no"),)
            ),
        }


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """An ordinary run of the plain family."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    config = configs.load(f"{CONFIG}:smoke", {"data.num_classes": 3, "data.fake_size": 100})
    assert train(config, folder) == 0
    return folder


@pytest.fixture(scope="module")
def run(workdir):
    """The run as Python sees it, of a family with analyses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain, "FAMILY", StudyFamily)
        return branchnets.load_run(workdir)


@pytest.fixture
def studied(monkeypatch):
    """Runs of the plain family have analyses."""
    monkeypatch.setattr(plain, "FAMILY", StudyFamily)
    SEEN.clear()


@pytest.fixture
def image_folder(tmp_path):
    for i, shape in enumerate([(8, 8), (12, 9, 3), (8, 8, 3)]):
        path = tmp_path / "photos" / f"{i}" / "a.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.full(shape, 40 * i, np.uint8)).save(path)
    return tmp_path / "photos"


def run_tool(*words):
    return tool.main([str(word) for word in words])


def test_the_command_writes_a_report(workdir, studied, tmp_path, capsys):
    out = tmp_path / "report"
    assert run_tool(f"--workdir={workdir}", f"--out={out}", "--bins=7") == 0
    printed = capsys.readouterr()
    assert f"report: {out / 'index.html'}" in printed.out and "Traceback" not in printed.err
    lines = [line.split() for line in printed.out.splitlines()]
    assert ["Confidence", "bins", "7"] in lines and ["Run", "accuracy"] in [x[:2] for x in lines]
    assert "[2/5] Classes" in printed.err and "[3/5] Confidence" in printed.err
    assert "Far away: this network and data have nothing to show." in printed.err
    assert sorted(os.listdir(out)) == [
        "confusion.png",
        "confusions.csv",
        "fig9_confidence.png",
        "index.html",
        "report.json",
        "run_classes.csv",
        "run_config.csv",
        "run_metrics.csv",
        "table1_architecture.csv",
        "table9_sizes.csv",
    ]
    record = json.loads((out / "report.json").read_text())
    assert record["sections"]["Confidence"]["bins"] == 7
    assert record["header"]["run"].startswith("tiny, checkpoint at step ")
    assert str(workdir.parent) not in (out / "index.html").read_text()


def test_the_run_section_is_what_evaluation_says(run, studied, tmp_path):
    report = branchnets.analyze(run, tmp_path / "r", only="classes", progress=False)
    figures = report.sections["run"].figures_of_merit
    metrics = run.evaluate("test")
    assert figures["metrics"] == {k: v for k, v in metrics.items() if isinstance(v, float)}
    assert figures["accuracy_low"] <= figures["accuracy"] <= figures["accuracy_high"]
    with (tmp_path / "r" / "run_classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    total = sum(int(row["images"]) for row in rows)
    right = sum(float(row["accuracy"]) * int(row["images"]) for row in rows)
    assert total == len(run.dataset.split("test")) == figures["examples"]
    assert right / total == pytest.approx(metrics["accuracy"])
    assert report.sections["classes"].figures_of_merit["wrong"] == total - round(right)
    with (tmp_path / "r" / "confusions.csv").open() as file:
        assert sum(int(row["images"]) for row in csv.DictReader(file)) == total - round(right)
    with (tmp_path / "r" / "table1_architecture.csv").open() as file:
        rows = list(csv.DictReader(file))
    count = sum(leaf.size for leaf in jax.tree.leaves(run.variables["params"]))
    assert int(rows[-1]["parameters"]) == count == figures["parameters"]
    assert sum(int(row["MACs"]) for row in rows[:-1]) == int(rows[-1]["MACs"])
    assert {"stem/conv", "stage2/block0", "head/linear", "total"} <= {row["part"] for row in rows}


def test_devices_do_not_matter(workdir, studied, tmp_path):
    """Eight simulated devices, whose batches are padded otherwise, and one."""
    merits = []
    for devices in (jax.devices(), jax.devices()[:1]):
        run = branchnets.load_run(workdir, devices=devices)
        assert run.setup.mesh.size == len(devices)
        report = branchnets.analyze(run, tmp_path / "r", ood="digits", progress=False)
        merits.append({n: dict(s.figures_of_merit) for n, s in report.sections.items()})
    assert len(jax.devices()) == 8 and set(merits[0]) == {"run", "classes", "confidence", "far"}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *merits)


def test_the_help_lists_the_flags_of_the_family(workdir, studied, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_tool(f"--workdir={workdir}", "--help")
    text = capsys.readouterr().out
    assert stopped.value.code == 0
    assert "--bins N" in text and "number of bins (default: 10)" in text and "--refuse" in text
    with pytest.raises(SystemExit):
        run_tool("--help")
    text = capsys.readouterr().out
    assert "--bins" not in text and "--workdir=RUN, --help lists the flags" in text


def test_another_split_stands_for_test(run, studied, tmp_path):
    report = branchnets.analyze(run, tmp_path / "r", ["confidence"], split="train", progress=False)
    size = len(run.dataset.split("train"))
    assert report.sections["confidence"].tables[0].rows == (("test", size),)
    assert report.sections["run"].figures_of_merit["examples"] == size
    record = json.loads((tmp_path / "r" / "report.json").read_text())
    assert record["header"]["note"] == "what is called test below is split 'train'"
    assert SEEN[0].studied == "train"
    assert "split 'train'" in report.sections["run"].text


def test_images_from_outside_are_made_to_fit_with_a_notice(
    workdir, studied, tmp_path, image_folder, capsys
):
    assert run_tool(f"--workdir={workdir}", f"--out={tmp_path / 'r'}", f"--ood={image_folder}") == 0
    shown = capsys.readouterr().err
    assert f"images of {image_folder} are 12x9; resized to 8x8." in shown
    assert f"colour images of {image_folder} were made grey" in shown
    page = (tmp_path / "r" / "index.html").read_text()
    assert "are 12x9; resized to 8x8." in page
    assert SEEN[0].outside_name == str(image_folder)
    record = json.loads((tmp_path / "r" / "report.json").read_text())
    assert record["sections"]["Far away"]["n"] == 3
    assert record["header"]["out of distribution"] == f"{image_folder}, 3 images"


def test_options_and_seed_reach_the_analyses(workdir, studied, tmp_path):
    words = (f"--workdir={workdir}", f"--out={tmp_path / 'r'}", "--only=confidence")
    assert run_tool(*words, "--config.seed=5") == 0
    assert SEEN[0].options == {"bins": 10, "refuse": False} and SEEN[0].seed == 5


def test_an_analysis_that_says_no_leaves_the_older_report(run, workdir, tmp_path, studied, capsys):
    out = tmp_path / "report"
    branchnets.analyze(run, out, ["confidence"], progress=False)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert run_tool(f"--workdir={workdir}", f"--out={out}", "--refuse", "--only=strict") == 2
    assert capsys.readouterr().err.endswith("error: the analysis says no; do something else.\n")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    with pytest.raises(UserError, match="says no"):
        branchnets.analyze(run, tmp_path / "new", ["strict"], progress=False, refuse=True)
    assert os.listdir(tmp_path) == ["report"]


def test_a_folder_that_cannot_be_written_is_told_before_anything_runs(
    run, workdir, studied, tmp_path, capsys
):
    (tmp_path / "file").write_text("")
    assert run_tool(f"--workdir={workdir}", f"--out={tmp_path / 'file'}") == 2
    assert "is a file; choose another --out" in capsys.readouterr().err
    with pytest.raises(ReportError, match="cannot be written"):
        branchnets.analyze(run, tmp_path / "file" / "r")
    assert not SEEN


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(only=["confidense"]), ConfigError, "unknown analysis 'confidense'. Did you mean 'c"),
        (dict(bin=3), ConfigError, "unknown option 'bin'. Did you mean 'bins'"),
        (dict(split="tset"), DataError, "has no split 'tset'"),
        (dict(ood="nowhere"), UserError, "nor is it a folder of images"),
        (dict(ood_dir="x"), UserError, "give ood too"),
        (dict(ood=""), UserError, "--ood is empty"),
        (dict(ood="cifar100", ood_dir=""), UserError, "--ood_dir is empty"),
        (dict(ood="cifar100", ood_dir="nowhere"), DataError, "give --ood_dir=DIR or set TFDS"),
        (dict(bins=0), UserError, "bins: from 1, not 0"),
    ],
)
def test_bad_arguments_are_told_before_anything_runs(
    run, studied, tmp_path, arguments, error, message
):
    with pytest.raises(error, match=message):
        branchnets.analyze(run, tmp_path / "r", **arguments)
    assert not SEEN and not (tmp_path / "r").exists()


def test_runs_to_compare_with_reach_the_analyses(run, workdir, studied, tmp_path):
    """The run itself is one of them: it is finished."""
    branchnets.analyze(run, tmp_path / "r", ["confidence"], beside=workdir.parent, progress=False)
    (other,) = SEEN[0].others
    assert other.name == "tiny" and other.config["model.name"] == run.config.model.name
    assert 0 <= other.figures["test_accuracy"] <= 1
    history = SEEN[0].history()
    assert history[-1]["split"] == "final_test" and history[-1]["step"] == run.step


def test_a_folder_without_runs_to_compare_with_is_told(workdir, studied, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    words = (f"--workdir={workdir}", f"--out={tmp_path / 'r'}", f"--beside={tmp_path / 'empty'}")
    assert run_tool(*words) == 2
    assert "is no run directory, and none lies" in capsys.readouterr().err
    assert not SEEN and not (tmp_path / "r").exists()


def test_a_family_without_analyses_has_a_report_of_its_classes(workdir, tmp_path, capsys):
    assert run_tool(f"--workdir={workdir}", f"--out={tmp_path / 'r'}") == 0
    assert "[2/2] Classes" in capsys.readouterr().err
    record = json.loads((tmp_path / "r" / "report.json").read_text())
    assert set(record["sections"]) == {"Run", "Classes"}


def test_of_many_classes_those_with_most_mistakes_are_drawn():
    matrix = np.eye(40, dtype=int) * 3
    matrix[5:36, 39] = np.arange(31, 0, -1)
    shown = classes._shown(matrix)
    # The column of answers, and of the 31 rows with mistakes all but the two with fewest.
    assert shown.tolist() == [*range(5, 34), 39]
    assert "10 other classes" in classes._figure(matrix, tuple(map(str, range(40)))).caption


def test_no_run_is_told(tmp_path, capsys):
    assert run_tool(f"--workdir={tmp_path}") == 2
    assert "is no run directory" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        run_tool("--ood=cifar100")
    assert stopped.value.code == 2 and "--workdir" in capsys.readouterr().err


def test_analyses_see_normalised_images_and_the_networks_weights(run, studied, tmp_path):
    branchnets.analyze(run, tmp_path / "r", ["confidence"], progress=False)
    batch = next(iter(SEEN[0].examples("test")))
    raw = run.dataset.split("test").images[:1].astype(np.float32) / 255
    expected = (raw - np.array(run.dataset.mean)) / np.array(run.dataset.std)
    np.testing.assert_allclose(batch["image"][:1], expected, rtol=1e-5, atol=1e-6)
    assert SEEN[0].variables["params"] is run.variables["params"]

"""From a trained digits net to a classifier of one class, in Python and on the command line."""

import functools
import json
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

import branchnets
from branchnets.deploy.folder import RECORD
from branchnets.engine import config as configs
from branchnets.engine.records.rundir import RunDir
from branchnets.engine.train import train
from branchnets.errors import ConfigError, DeployError, RunDirError
from branchnets.families.coded import slim
from branchnets.tools import predict
from branchnets.tools import slim as tool

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
ONE = jax.devices()[:1]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A short training on the real digits, at their own size."""
    place = tmp_path_factory.mktemp("slim") / "digits_run"
    config = configs.load(CONFIGS / "coded_digits.py")
    settings = {
        "model.active": ((10,), (5,), (3,)),
        "data.image_size": None,
        "data.pad_to": 12,
        "epochs": 3,
        "eval.every_epochs": 3,
        "augment.crop_padding": 0,
        "optimizer.learning_rate": 0.02,
    }
    train(configs.apply_overrides(config, settings), place, ONE)
    return place


@pytest.fixture(scope="module")
def run(run_dir):
    return branchnets.load_run(run_dir, devices=ONE)


@pytest.fixture(scope="module")
def seven(run_dir, tmp_path_factory):
    """Written by the command line."""
    out = tmp_path_factory.mktemp("out") / "seven"
    assert tool.main([f"--workdir={run_dir}", "--class=7", f"--out={out}"]) == 0
    return out


@functools.partial(jax.jit, static_argnums=0)
def apply(model, variables, images, remove=None):
    return model.apply(variables, images, remove=remove).logits


def test_every_class_of_a_trained_net(run):
    """The slimmed score is the masked full network's, on real images, with trained weights."""
    model, variables, schemes = run.model, run.variables, run.family.schemes
    images = next(iter(run.setup.evaluation_input("test")))["image"]
    assert run.evaluate()["accuracy"] > 0.7
    for k in range(10):
        keep = slim.keep_of(schemes, [k])
        logits = apply(model, variables, images, slim.masks_of(keep, model, len(images)))
        weights = slim.slim_variables(model, variables, keep, [k])
        ours = apply(slim.slim_model(model, keep, [k]), weights, images)
        assert np.ptp(ours) > 0.1 * np.abs(logits).max()
        np.testing.assert_allclose(
            ours[:, 0], logits[:, k], rtol=0, atol=1e-5 * np.abs(logits).max()
        )


def test_in_python(run, run_dir, seven, tmp_path):
    slimmed = branchnets.slim(run, classes="7")
    record = json.loads((seven / RECORD).read_text())
    assert record["class"] == "7" and record["threshold"] == pytest.approx(slimmed.thresholds[0])
    assert record["scores"]["7"] == pytest.approx(slimmed.record["scores"]["7"])
    assert record["parameters"] == slimmed.record["parameters"]
    parent = record["parent"]
    assert (parent["run"], parent["step"]) == ("digits_run", run.step)
    assert parent["model"] == "coded_resnext_digits" and parent["dataset"] == "digits"
    assert str(run_dir.parent) not in (seven / RECORD).read_text()
    assert record["preprocessing"]["content_shape"] == [8, 8, 1]
    assert record["preprocessing"]["image_shape"] == [12, 12, 1]
    # A set, by path and straight into a folder.
    several = branchnets.slim(run_dir, tmp_path / "set", classes=(1, "4"), negatives=3)
    assert several.outputs == ("1", "4") == branchnets.load_classifier(tmp_path / "set").outputs


def save_digits(run, folder, count=12):
    """Test images as files, before padding."""
    split = run.dataset.split("test")
    paths = []
    for i in range(count):
        paths.append(folder / f"{i}.png")
        Image.fromarray(split.images[i, 2:10, 2:10, 0]).save(paths[-1])
    return paths, split


@pytest.mark.parametrize("form", ["module", "export"])
def test_predict_agrees_with_the_masked_full_network(run, seven, tmp_path, capsys, form):
    paths, split = save_digits(run, tmp_path)
    words = [str(seven), *map(str, paths), f"--form={form}", "--json"]
    assert predict.main(words) == 0
    found = json.loads(capsys.readouterr().out)
    keep = slim.keep_of(run.family.schemes, [7])
    images = next(iter(run.setup.evaluation_input("test")))["image"][: len(paths)]
    masks = slim.masks_of(keep, run.model, len(paths))
    logits = np.asarray(apply(run.model, run.variables, images, masks))
    threshold = json.loads((seven / RECORD).read_text())["threshold"]
    for i, record in enumerate(found):
        assert record["file"] == str(paths[i]) and record["notice"] == ""
        score = record["scores"]["7"]
        assert score == pytest.approx(float(logits[i, 7]), abs=1e-5 * float(np.abs(logits).max()))
        assert record["decision"]["7"] == (score >= threshold)


def test_predict_lines_notices_and_unreadable_files(run, seven, tmp_path, capsys):
    (good,), _ = save_digits(run, tmp_path, 1)
    colour = tmp_path / "colour.png"
    Image.fromarray(np.full((20, 30, 3), 99, np.uint8)).save(colour)
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    assert predict.main([str(seven), str(good), str(bad), str(colour)]) == 2
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == [str(good), str(colour)]
    assert all(line.split()[1] == "7" and line.split()[-1] in ("yes", "no") for line in lines)
    assert f"notice: {colour}: resized from 20x30 to 8x8, colour made grey" in err
    assert f"error: {bad} is no image" in err and str(good) not in err
    assert predict.main([str(seven), str(tmp_path / "none.png")]) == 2
    assert "there is no image" in capsys.readouterr().err
    assert predict.main([str(tmp_path / "nowhere"), str(good)]) == 2
    assert "error:" in capsys.readouterr().err


def fails(capsys, *words):
    try:
        status = tool.main(list(words))
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    error = capsys.readouterr().err
    assert error.startswith("error:") and "Traceback" not in error
    return error


def test_bad_requests(run_dir, seven, tmp_path, capsys, monkeypatch):
    out = f"--out={tmp_path / 'new'}"
    workdir = f"--workdir={run_dir}"
    assert "unknown class 'seven'" in fails(capsys, workdir, "--class=seven", out)
    assert "given twice" in fails(capsys, workdir, "--class=7", "--class=7", out)
    assert "--class" in fails(capsys, workdir, out)
    assert "Did you mean '--class'" in fails(capsys, workdir, "--class=7", "--clas=7", out)
    assert "--workdir" in fails(capsys, "--class=7", out)
    assert "no config.json" in fails(capsys, f"--workdir={tmp_path}", "--class=7", out)
    # A folder that cannot be written is told before anything is loaded.
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("branchnets.engine.runs.load_run", None)
    assert "is a file" in fails(capsys, workdir, "--class=7", f"--out={tmp_path / 'file'}")
    assert "not empty" in fails(capsys, workdir, "--class=7", f"--out={tmp_path}")
    assert not (tmp_path / "new").exists()
    with pytest.raises(DeployError, match="is a file"):
        branchnets.slim(run_dir, tmp_path / "file", classes="7")


def test_bad_requests_in_python(run):
    with pytest.raises(ConfigError, match="Did you mean 'classes'"):
        branchnets.slim(run, clases="7")
    with pytest.raises(ConfigError, match="must be given"):
        branchnets.slim(run)
    with pytest.raises(RunDirError):
        branchnets.slim("no_such_run", classes="7")


def test_a_plain_run(tmp_path, capsys):
    config = configs.load(CONFIGS / "resnext_digits.py")
    with RunDir(tmp_path / "plain") as run_dir:  # said before any weights are looked for
        run_dir.start(config, {})
    words = (f"--workdir={tmp_path / 'plain'}", "--class=7", f"--out={tmp_path / 'out'}")
    error = fails(capsys, *words)
    assert "no branches with a meaning" in error


def test_help_lists_the_flags_of_the_family(run_dir, capsys):
    with pytest.raises(SystemExit) as stop:
        tool.main([f"--workdir={run_dir}", "--help"])
    assert stop.value.code == 0 and "--class" in capsys.readouterr().out

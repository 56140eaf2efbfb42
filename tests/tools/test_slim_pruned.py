"""From a run with frozen connections to a pruned network that predicts, on the command line."""

import json
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

import branchnets
from branchnets import main
from branchnets.counting import describe
from branchnets.deploy.describe import build_module
from branchnets.deploy.folder import RECORD
from branchnets.engine import config as configs
from branchnets.engine.train import train
from branchnets.errors import ConfigError
from branchnets.families.maskconnect import MaskConnectFamily
from branchnets.families.maskconnect.model import MaskConnectNet
from branchnets.tools import predict
from branchnets.tools import slim as tool

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
MASKCONNECT = CONFIGS / "maskconnect_digits.py"
ONE = jax.devices()[:1]


def start(place, argument="k=1", epochs=2, **overrides):
    """Four steps that learn and four that tune, on fake 8x8 images; one epoch: none that tune."""
    config = configs.load(f"{MASKCONNECT}:smoke,{argument}")
    config.model.depths = (1, 1)
    config.epochs = epochs
    config.maskconnect.phases = (("learn", 1.0), ("tune", 1.0))[:epochs]
    config.data.fake_size = 32
    config.checkpoint.keep_latest = 9
    train(configs.apply_overrides(config, overrides), place, ONE)
    return place


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return start(tmp_path_factory.mktemp("runs") / "learned")


@pytest.fixture(scope="module")
def run(run_dir):
    return branchnets.load_run(run_dir, devices=ONE)


@pytest.fixture(scope="module")
def folder(run_dir, tmp_path_factory):
    """Written by the command line."""
    out = tmp_path_factory.mktemp("out") / "pruned"
    assert tool.main([f"--workdir={run_dir}", f"--out={out}"]) == 0
    return out


@pytest.fixture(scope="module")
def frozen_logits(run):
    """Of the full network with its frozen connections, on the test images."""
    images = next(iter(run.setup.evaluation_input("test")))["image"]
    return np.asarray(jax.jit(run.model.apply)(run.variables, images).logits)


def test_the_record_says_what_was_saved(run, run_dir, folder, capsys):
    record = json.loads((folder / RECORD).read_text())
    assert record["parameters"] < record["parent_parameters"]
    assert record["macs"] < record["parent_macs"]
    assert record["parent_macs"] == describe(run.model, (8, 8, 1)).macs
    assert record["parent_parameters"] == describe(run.model, (8, 8, 1)).parameters
    for name in ("parameters", "macs"):
        assert record[f"{name}_ratio"] == pytest.approx(record[name] / record[f"parent_{name}"])
    kept = [len(indices) for indices in record["branches"].values()]
    assert kept[0] < 4 and kept[-1] == 4
    for network in ("this", "parent"):
        times = record["latency"]["milliseconds"][network]
        assert set(times) == {"1", "32"} and min(times.values()) > 0
    assert record["decision"] == "the output with the largest score"
    assert record["parent"]["run"] == run_dir.name and str(run_dir.parent) not in str(record)


def test_the_module_can_be_rebuilt_from_the_record(run, folder):
    record = json.loads((folder / RECORD).read_text())
    model = build_module(record["module"], MaskConnectFamily.modules)
    assert type(model) is MaskConnectNet is type(run.model)
    specs = list(model.modules().values())
    assert [s.branches for s in specs] == [len(b) for b in record["branches"].values()]
    assert specs[0].connections is None
    for before, spec in zip(specs, specs[1:], strict=False):
        assert len(spec.connections) == spec.branches
        assert {k for row in spec.connections for k in row} == set(range(before.branches))
    loaded = branchnets.load_classifier(folder)
    assert loaded.model == model and loaded.thresholds is None
    assert loaded.outputs == tuple(run.dataset.class_names)
    assert describe(model, (8, 8, 1)).parameters == record["parameters"]


@pytest.mark.parametrize("form", ["module", "export"])
def test_predict_names_the_classes_of_the_full_frozen_network(
    run, folder, frozen_logits, tmp_path, capsys, form
):
    paths = []
    for i, image in enumerate(run.dataset.split("test").images[: len(frozen_logits)]):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(image[..., 0]).save(paths[-1])
    assert predict.main([str(folder), *map(str, paths), f"--form={form}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    names = run.dataset.class_names
    assert [record["decision"] for record in found] == [names[k] for k in frozen_logits.argmax(1)]
    scores = np.array([[record["scores"][name] for name in names] for record in found])
    scale = np.abs(frozen_logits).max()
    np.testing.assert_allclose(scores, frozen_logits, rtol=0, atol=1e-5 * scale)
    # For people: the file, its class, and the score of that class.
    assert predict.main([str(folder), str(paths[0]), f"--form={form}"]) == 0
    file, name, score = capsys.readouterr().out.split()
    assert (file, name) == (str(paths[0]), found[0]["decision"])
    assert float(score) == pytest.approx(found[0]["scores"][name], abs=1e-4)


def test_in_python(run, frozen_logits):
    slimmed = branchnets.slim(run)
    assert slimmed.thresholds is None and "■" in slimmed.text
    assert f"{slimmed.record['parameters']:,}" in slimmed.text
    assert "for batches of 32" in slimmed.text
    with pytest.raises(ConfigError, match="unknown option 'classes'. There are none"):
        branchnets.slim(run, classes="7")


def fails(capsys, command, *words):
    try:
        status = command(list(words))
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    error = capsys.readouterr().err
    assert error.startswith("error:") and "Traceback" not in error
    return error


def test_masks_that_are_still_learned_cannot_be_pruned(run_dir, tmp_path, capsys):
    out = f"--out={tmp_path / 'new'}"
    error = fails(capsys, tool.main, f"--workdir={run_dir}", "--checkpoint=4", out)
    assert "still being learned" in error and "mode 'tune'" in error
    assert not (tmp_path / "new").exists()
    error = fails(capsys, tool.main, f"--workdir={run_dir}", out, "--class=7")
    assert "unknown argument '--class=7'" in error


def test_a_network_of_another_size_is_refused(run_dir, tmp_path, capsys):
    words = (f"--workdir={run_dir}", f"--out={tmp_path / 'new'}")
    error = fails(capsys, tool.main, *words, "--config.model.branches=5")
    assert "shape" in error and not (tmp_path / "new").exists()


@pytest.mark.slow  # two trainings
@pytest.mark.parametrize("kind", ["full", "real"])
def test_connectivity_without_branches_to_take_out_says_so(kind, tmp_path, capsys):
    place = start(tmp_path / kind, f"k=1,connectivity={kind}", epochs=1)
    capsys.readouterr()
    error = fails(capsys, tool.main, f"--workdir={place}", f"--out={tmp_path / 'out'}")
    assert f"connectivity {kind!r}" in error and "Slim a run with learned" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config.model.fan_in=9"], "fan_in is 9; a branch can read 1 to 4 others"),
        (["--config.model.fan_in=0"], "fan_in is 0; a branch can read 1 to 4 others"),
        (["--config.epochs=3"], "add up to 1 epochs, the run has 3"),
        (
            ["--config.maskconnect.phases=(('tune', 0.5), ('learn', 0.5))"],
            "cannot follow one that has frozen them",
        ),
        (["--config.maskconnect.phases=(('learned', 1.0),)"], "Did you mean 'learn'"),
        (["--config.model.connectivity=lerned"], "Did you mean 'learned'"),
        (["--config.model.aggregate=max"], "unknown aggregate 'max'. Known: mean, sum"),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_it_begins(words, message, tmp_path, capsys):
    place = tmp_path / "run"
    command = ["main", f"--config={MASKCONNECT}:smoke", f"--workdir={place}"]
    assert message in fails(capsys, main.main, *command, *words)
    assert not place.exists()

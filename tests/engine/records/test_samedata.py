"""A run goes on with the training data that it was started on, wherever that lies now."""

import pathlib
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from branchnets import data
from branchnets.data.stored.records import ChosenRecords, FileRecords
from branchnets.engine import config as configs
from branchnets.engine.records.rundir import RunDir
from branchnets.engine.records.samedata import other_data
from branchnets.engine.setup import prepare
from branchnets.errors import RunDirError

CONFIGS = pathlib.Path(__file__).parents[3] / "configs"


def config_of(root, stream):
    fields = {
        "model.name": "net", "data.name": "folder", "data.data_dir": str(root),
        "data.stream": stream, "data.image_size": 4, "data.channels": 3,
    }  # fmt: skip
    return configs.apply_overrides(configs.base(), fields)


def photo(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)


def start(place, config):
    dataset = data.load(config.data)
    found = {"class_names": dataset.class_names, "train": data.identity(dataset.split("train"))}
    with RunDir(place) as run:
        return run.start(config, {"data": found})


@pytest.mark.parametrize("stream", [True, False])
def test_folders_may_move_but_not_change(stream, tmp_path, monkeypatch):
    monkeypatch.setenv("BRANCHNETS_CACHE", str(tmp_path / "cache"))
    root, moved = tmp_path / "photos", tmp_path / "moved"
    for name in ("train/ant/0", "train/bee/0", "train/bee/1", "test/ant/0"):
        photo(root / f"{name}.png")
    run = tmp_path / "run"
    assert start(run, config_of(root, stream)) is False
    shutil.copytree(root, moved)
    assert start(run, config_of(moved, stream)) is True
    photo(moved / "test" / "ant" / "1.png")
    assert start(run, config_of(moved, stream)) is True
    photo(moved / "train" / "ant" / "1.png")
    before = sorted(path.name for path in run.iterdir())
    with pytest.raises(RunDirError, match=r"there were 3 \(.*\), and now are 4 .*data_dir"):
        start(run, config_of(moved, stream))
    (moved / "train" / "ant").rename(moved / "train" / "cow")
    (moved / "test" / "ant").rename(moved / "test" / "cow")
    with pytest.raises(RunDirError, match=r"classes were 2 \(ant, bee\), and now are 2 \(bee, co"):
        start(run, config_of(moved, stream))
    assert sorted(path.name for path in run.iterdir()) == before


def test_images_of_another_shape_and_other_lengths_are_told():
    saved = {"steps_per_epoch": 4, "total_steps": 8, "data": {"image_shape": [8, 8, 1]}}
    same = {"steps_per_epoch": 4, "total_steps": 8, "data": {"image_shape": (8, 8, 1)}}
    assert other_data(saved, same) == ""
    assert "was (8, 8, 1), and now is (8, 8, 3)" in other_data(
        saved, {**same, "data": {"image_shape": (8, 8, 3)}}
    )
    assert "an epoch had 4 steps, and now has 5" in other_data(
        saved, {**same, "steps_per_epoch": 5}
    )


def test_a_run_that_goes_on_normalises_as_it_did():
    config = configs.load(str(CONFIGS / "coded_digits.py") + ":smoke")
    setup = prepare(config, jax.devices()[:1], {"mean": [0.25], "std": [0.125]})
    assert setup.derived()["data"]["mean"] == (0.25,) and setup.dataset.std == (0.125,)
    key = jax.random.key(0)
    image = setup.inputs.batch(setup.inputs.arrays(0), 0, key)["image"]
    other = prepare(config, jax.devices()[:1])
    as_before = other.inputs.batch(other.inputs.arrays(0), 0, key)["image"]
    mean, std = other.dataset.mean, other.dataset.std
    pixels = as_before * np.array(std) + np.array(mean)
    np.testing.assert_allclose(image, (pixels - 0.25) / 0.125, atol=1e-5)


def test_streamed_data_are_told_apart_without_reading_them(tmp_path):
    one = FileRecords(tmp_path, ["a/1.jpg", "b/1.jpg"], np.array([0, 1]))
    renamed = FileRecords(tmp_path, ["a/1.jpg", "b/2.jpg"], np.array([0, 1]))
    chosen = [ChosenRecords(one, np.array(i), np.array(i)) for i in ([0, 1], [1, 0])]
    found = [
        {"data": {"train": data.identity(data.StreamedSplit(records, (4, 4, 3)))}}
        for records in (one, renamed, *chosen)
    ]
    part = data.StreamedSplit(one, (4, 4, 3), np.array([1]))
    assert {"data": {"train": data.identity(part)}} == found[0]  # the config says which part
    assert other_data(found[0], found[0]) == "" == other_data({}, found[0])
    assert other_data(found[0], found[1]).startswith("there are 2 (files) as before, but others")
    assert other_data(*found[2:])

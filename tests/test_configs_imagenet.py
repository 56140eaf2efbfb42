"""The ImageNet configs on images that lie as ImageNet's do, in class folders or tfds's records."""

from __future__ import annotations

import json
import pathlib
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from branchnets import data
from branchnets.data.sets import imagenet
from branchnets.engine import config as configs
from branchnets.engine.records.logging import read_metrics
from branchnets.engine.train import train

TESTS = pathlib.Path(__file__).parent
FOLDER = TESTS.parent / "configs"
sys.path.append(str(TESTS / "data"))

import tfds_fixture as fixture  # noqa: E402

#: As photographs come: of many sizes, grey, for printing, turned by a note of the camera.
IMAGES = (("RGB", (50, 40)), ("L", (33, 70)), ("CMYK", (45, 45)), ("RGB", (300, 20)))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A thousand classes that share four images; a dozen images to test on."""
    root = tmp_path_factory.mktemp("imagenet")
    random = np.random.RandomState(0)
    for number, (mode, size) in enumerate(IMAGES):
        (root / "images" / str(number)).mkdir(parents=True)
        image = Image.fromarray(random.randint(0, 256, (*size, 3)).astype(np.uint8)).convert(mode)
        exif = Image.Exif()
        exif[0x0112] = 6 if number == 3 else 1  # orientation
        image.save(root / "images" / str(number) / "image.JPEG", exif=exif)
    wnids = list(imagenet.classes())
    for split, labels in (("train", range(1000)), ("val", range(0, 1000, 90))):
        (root / split).mkdir()
        for label in labels:
            (root / split / wnids[label]).symlink_to(root / "images" / str(label % len(IMAGES)))
    return root


@pytest.fixture(scope="module")
def records(root):
    """The same images as tfds's imagenet2012."""
    paths = {split: sorted((root / split).glob("*/*.JPEG")) for split in ("train", "val")}
    wnids = tuple(imagenet.classes())
    made = {
        split: [
            {"image": path.read_bytes(), "label": wnids.index(path.parent.name)} for path in own
        ]
        for split, own in paths.items()
    }
    # In one file, which is read in order: that of the folders.
    splits = {"train": [made["train"]], "validation": [made["val"]]}
    fixture.write_examples(root / "records", "imagenet2012", splits, wnids)
    return root / "records"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("BRANCHNETS_CACHE", str(tmp_path_factory.mktemp("cache")))


def load(name, where, *overrides):
    given = (f"data.data_dir={where}", "data.workers=0", "data.image_size=32", *overrides)
    return configs.load(FOLDER / name, [f"--config.{field}" for field in given])


def test_the_input_is_the_same_from_folders_and_from_records(root, records):
    name = "coded_imagenet.py"
    found = []
    for where in (root, records):
        config = load(name, where, "batch_size=8", "bn_group_size=8")
        dataset = data.load(config.data)
        inputs = data.train_input(dataset, config)
        assert inputs.steps_per_epoch == 125
        arrays = inputs.arrays(3)
        inputs.close()
        tested = list(data.eval_input(dataset.split("test"), dataset, config, 8))
        assert sum(float(part["mask"].sum()) for part in tested) == 12
        found.append((arrays, tested[1]))
    ours, theirs = found
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    batch = jax.jit(inputs.batch)(arrays, 3, jax.random.key(0))
    assert batch["image"].shape == (8, 32, 32, 3) and np.isfinite(batch["image"]).all()


def test_the_other_configs_have_the_same_input_but_for_its_size_and_randaugment(root):
    ours = load("coded_imagenet.py", root)
    for path in FOLDER.glob("*_imagenet.py"):
        theirs = load(path.name, root)
        assert theirs.data == ours.data
        for field in ours.augment:
            if not field.startswith("randaugment_"):
                assert theirs.augment[field] == ours.augment[field]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "model", "form"),
    [
        ("coded_imagenet.py", "active=((32,),(32,),(16,),(8,))", "folders"),
        ("resnext_imagenet.py", "depths=(1,1,1,1)", "records"),
    ],
)
def test_training_for_real(root, records, name, model, form, tmp_path):
    """The recipe at 32 pixels on 16 images a run, one block a stage."""
    where = root if form == "folders" else records
    small = (f"model.{model}", "batch_size=8", "bn_group_size=4", "data.train_size=16", "epochs=3")
    quick = ("schedule.warmup_epochs=0.0", "eval.every_epochs=3", "log.every_steps=1")
    config = load(name, where, *small, *quick, "dtype=float32")
    assert train(config, str(tmp_path), jax.devices()[:1]) == 0
    lines = read_metrics(tmp_path / "metrics.jsonl")
    losses = [line["cross_entropy"] for line in lines if line["split"] == "train"]
    assert len(losses) == 6 and min(losses[1:]) < losses[0] < 8  # ln 1000 = 6.9
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["test_examples"] == 12 and 6 < summary["test"]["cross_entropy"] < 12

"""A run that subtracts a mean image and crops: trained, loaded, deployed, given other data."""

import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

import branchnets
from branchnets.engine import config as configs
from branchnets.engine.runs import load_run
from branchnets.engine.train import train
from branchnets.tools import analyze, predict

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
SETTINGS = {
    "data.image_size": 10,
    "data.crop_size": 8,
    "data.per_pixel_mean": True,
    "augment.crop_padding": 1,
    "model.depths": (1, 1),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    config = configs.load(f"{CONFIGS / 'maskconnect_digits.py'}:smoke")
    place = tmp_path_factory.mktemp("mean") / "run"
    assert train(configs.apply_overrides(config, SETTINGS), place, jax.devices()[:1]) == 0
    return place


@pytest.fixture(scope="module")
def run(path):
    return branchnets.load_run(path)


def expected(run, images, offset=1):
    """float32 pixels of the middle 8x8, by numpy."""
    train_images = run.dataset.split("train").images / 255
    pixels = (images / 255 - train_images.mean(axis=0)) / np.array(run.dataset.std)
    return pixels[:, offset:9, offset:9]


def test_a_run_keeps_its_mean_image(run, path):
    images = run.dataset.split("train").images / 255
    assert images.shape[1:] == (10, 10, 1) and run.dataset.image_shape == (8, 8, 1)
    np.testing.assert_allclose(run.dataset.mean, images.mean(axis=0), rtol=1e-13)
    batch = next(iter(run.setup.evaluation_input("test")))
    want = expected(run, run.dataset.split("test").images)
    real = np.asarray(batch["mask"]) > 0
    np.testing.assert_allclose(np.asarray(batch["image"])[real], want[: real.sum()], atol=1e-5)
    # It is resumed (there is nothing left to do) and not refused.
    assert train(run.config, path, jax.devices()[:1]) == 0


def test_other_data_is_normalised_as_the_runs_own(run, path):
    """Larger images, cropped, and images of the network's size; their own mean is not taken."""
    for size, crop in ((14, 8), (8, None)):
        overrides = {"data.image_size": size, "data.crop_size": crop, "data.fake_size": 40}
        config = configs.apply_overrides(run_config(path), overrides)
        other = load_run(path, config=config)
        assert other.dataset.mean == run.dataset.mean and other.dataset.image_shape == (8, 8, 1)
        images = other.dataset.split("test").images
        offset = (size - 8) // 2
        images = images[:, offset : offset + 8, offset : offset + 8]
        mean = np.array(run.dataset.mean)[1:9, 1:9]
        batch = next(iter(other.setup.evaluation_input("test")))
        want = (images / 255 - mean) / np.array(run.dataset.std)
        np.testing.assert_allclose(batch["image"][:8], want[:8], atol=1e-5)


def run_config(path):
    return branchnets.load_run(path).config.copy_and_resolve_references()


@pytest.mark.slow
def test_a_deployed_network_subtracts_it(run, tmp_path):
    branchnets.slim(run, tmp_path / "net")
    images = run.dataset.split("test").images
    for i, image in enumerate(images[:3]):
        Image.fromarray(image[..., 0]).save(tmp_path / f"{i}.png")
    logits = run.model.apply(run.variables, expected(run, images[:3]).astype(np.float32)).logits
    for form in ("module", "export"):
        classifier = branchnets.load_classifier(tmp_path / "net", form)
        assert np.shape(classifier.preprocessing.mean) == (8, 8, 1)
        assert classifier.preprocessing.content_shape == (10, 10, 1)
        records, errors = predict.predict(classifier, [tmp_path / f"{i}.png" for i in range(3)])
        assert not errors and [record["notice"] for record in records] == ["", "", ""]
        scores = np.array([list(record["scores"].values()) for record in records])
        np.testing.assert_allclose(scores, logits, atol=1e-5 * float(np.abs(logits).max()))


def test_outside_images_are_cut_like_the_runs_own(run):
    split, notices = analyze._outside(run, "digits", None)
    assert split.images.shape[1:] == (8, 8, 1) and "resized to 10x10" in notices[0]

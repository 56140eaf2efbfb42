"""What of a streamed image a network is given outside of its evaluation."""

import jax
import numpy as np
import pytest
from PIL import Image

from branchnets import data
from branchnets.data.images import read_image
from branchnets.deploy.preprocess import Preprocessing
from branchnets.engine import config as configs
from branchnets.engine import mesh as meshes
from branchnets.engine.runs import Run
from branchnets.engine.setup import EvalSetup
from branchnets.tools import analyze, slim


@pytest.fixture
def photos(tmp_path):
    random = np.random.RandomState(0)
    for split in ("train", "test"):
        folder = tmp_path / split / "ant"
        folder.mkdir(parents=True)
        for i, size in enumerate([(90, 60), (70, 70), (64, 128)]):
            coarse = Image.fromarray(random.randint(0, 256, (4, 5, 3)).astype(np.uint8))
            coarse.resize(size, Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return tmp_path


def test_a_deployed_network_and_outside_images_are_cut_as_in_evaluation(photos):
    fields = {
        "data.name": "folder", "data.data_dir": str(photos), "data.stream": True,
        "data.image_size": 32, "data.channels": 3, "data.workers": 0, "data.decoder": "pillow",
        "eval.crop_fraction": 0.6, "batch_size": 3,
    }  # fmt: skip
    config = configs.apply_overrides(configs.base(), fields)
    dataset, mesh = data.load(config.data), meshes.make_mesh(jax.devices()[:1])
    run = Run(None, EvalSetup(config, dataset, None, mesh), None, 0)
    assert run.content_shape == (54, 54, 3)
    preprocessing = slim._preprocessing(run)
    assert preprocessing == Preprocessing.from_dict(preprocessing.as_dict())
    paths = [photos / "test" / "ant" / f"{i}.png" for i in range(3)]
    deployed = np.stack([preprocessing.read(path)[0] for path in paths])
    outside, _ = analyze._outside(run, photos / "test", None)
    np.testing.assert_array_equal(outside.images, deployed)
    (batch,) = run.setup.evaluation_input("test")
    evaluated = np.asarray(batch["image"]) * np.array(dataset.std) + np.array(dataset.mean)
    whole = np.stack([read_image(path, (32, 32, 3)) for path in paths])
    # Rounded to whole pixels, 54 is 32 / 0.6.
    assert np.abs(deployed / 255 - evaluated).mean() < 0.01
    assert np.abs(whole / 255 - evaluated).mean() > 0.05

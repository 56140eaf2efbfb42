"""Runs on images in folders: trained, and loaded again after the folder has moved."""

import numpy as np
import pytest
from PIL import Image

import branchnets
from branchnets.engine.train import train
from branchnets.errors import DataError
from branchnets.tools.common import family_of


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.setenv("BRANCHNETS_CACHE", str(tmp_path / "cache"))
    random = np.random.RandomState(0)
    for split, count in (("train", 8), ("test", 2)):
        for k in range(10):
            for i in range(count):
                path = tmp_path / "photos" / split / f"class{k}" / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = random.randint(20 * k, 20 * k + 40, (9, 8, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(path)
    return tmp_path / "photos"


@pytest.mark.slow
def test_a_run_on_a_folder_is_loaded_where_the_folder_is_now(photos, tiny, tmp_path):
    config = tiny(**{"data.name": "folder", "data.data_dir": str(photos), "data.channels": None})
    assert train(config, tmp_path / "run") == 0
    run = branchnets.load_run(tmp_path / "run")
    assert run.dataset.spec.class_names[3] == "class3" and run.dataset.image_shape == (8, 8, 3)
    accuracy = run.evaluate()["accuracy"]

    moved = photos.rename(tmp_path / "moved")
    with pytest.raises(DataError, match="there is no folder"):
        branchnets.load_run(tmp_path / "run")
    words = [f"--config.data.data_dir={moved}"]
    config, family = family_of(tmp_path / "run", words)
    assert family.class_names[3] == "class3"
    again = branchnets.load_run(tmp_path / "run", config=config)
    assert again.dataset.mean == run.dataset.mean
    assert again.evaluate()["accuracy"] == accuracy

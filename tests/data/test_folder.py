"""Data sets made of folders of images."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from branchnets import data
from branchnets.data import statistics
from branchnets.data.sets import folder
from branchnets.data.stored import held
from branchnets.errors import DataError


def save(path, shape=(6, 6, 3), value=None, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)
    if value is not None:
        pixels[:] = value
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def root(tmp_path):
    """Two classes, three and two training images, one and two test images."""
    seed = 0
    for split, counts in (("train", {"dog": 3, "cat": 2}), ("test", {"dog": 1, "cat": 2})):
        for name, count in counts.items():
            for i in range(count):
                seed += 1
                save(tmp_path / split / name / f"{i}.png", seed=seed)
    return tmp_path


def cfg(root, **fields):
    return SimpleNamespace(name="folder", data_dir=str(root), **fields)


def test_folders_become_a_dataset_with_classes_by_name(root):
    found = data.load(cfg(root))
    assert found.class_names == ("cat", "dog") and found.image_shape == (6, 6, 3)
    np.testing.assert_array_equal(found.split("train").labels, [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(found.split("test").labels, [0, 0, 1])
    expected = np.asarray(Image.open(root / "train" / "dog" / "1.png"))
    np.testing.assert_array_equal(found.split("train").images[3], expected)
    assert data.spec(None, cfg(root)) == found.spec


def test_statistics_are_those_of_the_training_pixels(root):
    found = data.load(cfg(root))
    pixels = found.split("train").images.astype(np.float64).reshape(-1, 3) / 255
    np.testing.assert_allclose(found.mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.std, pixels.std(0), rtol=1e-9)
    flat = np.full((2, 3, 3, 1), 7, np.uint8)
    assert statistics.channel_statistics(flat) == ((7 / 255,), (1 / 255,))


def test_what_was_decoded_is_kept_until_a_file_changes(root, monkeypatch):
    first = data.load(cfg(root))
    opened = []
    original = folder.fit
    monkeypatch.setattr(folder, "fit", lambda *a: opened.append(a) or original(*a))
    again = data.load(cfg(root))
    assert not opened
    np.testing.assert_array_equal(again.split("train").images, first.split("train").images)
    pixels = save(root / "test" / "cat" / "0.png", value=9, shape=(6, 6, 3))
    np.testing.assert_array_equal(data.load(cfg(root)).split("test").images[0], pixels)
    assert len(opened) == 3  # the test split alone


def test_sizes_and_channels_as_the_config_says(root):
    save(root / "train" / "cat" / "wide.png", shape=(4, 9, 3))
    with pytest.raises(DataError, match=r"wide\.png is 4x9, the first image 6x6; set data\.image_"):
        data.load(cfg(root))
    found = data.load(cfg(root, image_size=5, channels=1))
    assert found.image_shape == (5, 5, 1)
    assert data.spec(None, cfg(root, image_size=5, channels=1)).image_shape == (5, 5, 1)
    assert data.load(cfg(root, image_size=5, pad_to=8)).image_shape == (8, 8, 3)


def test_colours_are_not_lost_unasked(tmp_path):
    save(tmp_path / "train" / "a" / "0.png", shape=(4, 4))
    save(tmp_path / "test" / "a" / "0.png", shape=(4, 4))
    assert data.load(cfg(tmp_path)).image_shape == (4, 4, 1)
    save(tmp_path / "train" / "b" / "0.png", shape=(4, 4, 3))
    with pytest.raises(DataError, match=r"b/0\.png has colours.*data\.channels"):
        data.load(cfg(tmp_path))
    assert data.load(cfg(tmp_path, channels=3)).image_shape == (4, 4, 3)
    assert data.load(cfg(tmp_path, channels=1)).image_shape == (4, 4, 1)


def test_val_is_the_test_split_where_there_is_no_other(root):
    (root / "test").rename(root / "val")
    assert sorted(data.load(cfg(root)).splits) == ["test", "train"]
    save(root / "test" / "cat" / "0.png")
    found = data.load(cfg(root))
    assert {name: len(split) for name, split in found.splits.items()} == {
        "train": 5,
        "validation": 3,
        "test": 1,
    }


def test_subsets_work_as_for_any_other(root):
    found = data.load(cfg(root, train_size=2, validation_size=2))
    np.testing.assert_array_equal(np.bincount(found.split("train").labels), [1, 1])
    assert len(found.split("validation")) == 2


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: (r / "train").rename(r / "tr"), "has no folder 'train'; images lie in"),
        (lambda r: (r / "test").rename(r / "te"), "has no folder 'test'; images lie in"),
        (lambda r: (r / "train" / "ape").mkdir(), "train/ape has no images"),
        (lambda r: (r / "test" / "ape").mkdir(), "a class 'ape' that the training split has not"),
        (lambda r: (r / "test" / "cat" / "0.png").write_text("x"), r"cat/0\.png is no image"),
    ],
)
def test_folders_that_do_not_fit_are_told(root, spoil, message):
    spoil(root)
    with pytest.raises(DataError, match=message):
        data.load(cfg(root))


def test_an_empty_split_is_told(root):
    for name in ("cat", "dog"):
        for path in (root / "test" / name).iterdir():
            path.unlink()
    with pytest.raises(DataError, match="test has no images: the split is empty"):
        data.load(cfg(root))


def test_no_folder_and_too_much_are_told(root, monkeypatch):
    with pytest.raises(DataError, match=r"needs data\.data_dir"):
        data.load(SimpleNamespace(name="folder"))
    with pytest.raises(DataError, match="there is no folder"):
        data.load(cfg(root / "absent"))
    monkeypatch.setattr(held, "MAX_BYTES", 100)
    with pytest.raises(DataError, match=r"8 images.*smaller data\.image_size"):
        data.load(cfg(root))

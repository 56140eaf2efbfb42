"""Out-of-distribution images: data sets and folders, made to fit, with notices."""

from types import SimpleNamespace

import numpy as np
import pytest
import tfds_fixture as fixture
from PIL import Image

from branchnets import data
from branchnets.data.outside import load_outside
from branchnets.data.sets import digits
from branchnets.errors import DataError, UserError


def _save(path, shape, value=128):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, value, np.uint8)).save(path)


def test_a_data_set_of_the_right_shape_is_taken_as_it_is():
    split, notices = load_outside("digits", (8, 8, 1))
    np.testing.assert_array_equal(split.images, digits.read().split("test").images)
    assert not notices and not split.labels.any()


def test_another_size_and_other_channels_are_made_to_fit_and_told():
    split, notices = load_outside("fake", (16, 16, 1))
    assert split.images.shape[1:] == (16, 16, 1)
    assert notices == [
        "images of fake are 32x32; resized to 16x16.",
        "colour images of fake were made grey, as the network takes them.",
    ]
    split, notices = load_outside("digits", (8, 8, 3), split="train")
    assert len(split) == 1257
    np.testing.assert_array_equal(split.images[..., 0], split.images[..., 2])
    assert notices == ["grey images of digits were made colour, as the network takes them."]


def test_a_folder_gives_all_the_images_below_it(tmp_path):
    _save(tmp_path / "a.png", (8, 8, 3), 1)
    _save(tmp_path / "deep" / "er" / "b.png", (8, 4, 3), 2)
    _save(tmp_path / "deep" / "c.png", (9, 9), 3)
    split, notices = load_outside(tmp_path, (8, 8, 3))
    np.testing.assert_array_equal(split.images[:, 0, 0, 0], [1, 3, 2])
    assert notices == [
        f"images of {tmp_path} are 8x4 and 1 other sizes; resized to 8x8.",
        f"grey images of {tmp_path} were made colour, as the network takes them.",
    ]


def test_a_name_wins_over_a_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _save(tmp_path / "digits" / "a.png", (8, 8))
    assert len(load_outside("digits", (8, 8, 1))[0]) == 360
    assert len(load_outside("./digits", (8, 8, 1))[0]) == 1


def test_what_is_not_there_or_empty_is_told(tmp_path):
    with pytest.raises(UserError, match="nor is it a folder of images.*Did you mean 'cifar10'"):
        load_outside("cifar10O", (8, 8, 1))
    with pytest.raises(DataError, match="has no images"):
        load_outside(tmp_path, (8, 8, 1))
    (tmp_path / "bad.png").write_text("x")
    with pytest.raises(DataError, match=r"bad\.png is no image"):
        load_outside(tmp_path, (8, 8, 1))
    with pytest.raises(DataError, match="has no split 'tset'"):
        load_outside("digits", (8, 8, 1), split="tset")
    with pytest.raises(DataError, match="cifar100.*Prepare it once"):
        load_outside("cifar100", (8, 8, 1), data_dir=str(tmp_path))


def test_the_border_of_the_networks_images_is_theirs_too(tmp_path):
    _save(tmp_path / "a.png", (12, 12), 200)  # as large as what the network takes
    split, notices = load_outside(tmp_path, (12, 12, 1), content_shape=(8, 8, 1))
    border = np.zeros((12, 12), np.uint8)
    border[2:10, 2:10] = 200
    np.testing.assert_array_equal(split.images[0, ..., 0], border)
    assert notices == [f"images of {tmp_path} are 12x12; resized to 8x8."]
    padded = data.load(SimpleNamespace(name="digits", pad_to=12)).split("test")
    split, notices = load_outside("digits", (12, 12, 1), content_shape=(8, 8, 1))
    np.testing.assert_array_equal(split.images, padded.images)
    assert not notices
    config = SimpleNamespace(name="digits", pad_to=12)
    assert data.content_shape(config) == (8, 8, 1)
    assert data.spec(None, config).image_shape == (12, 12, 1)


def test_a_data_set_that_is_not_there_is_told_with_the_flag_that_says_where(tmp_path):
    with pytest.raises(DataError, match=r"\(--ood_dir\).*") as error:
        load_outside("cifar100", (8, 8, 1), data_dir=str(tmp_path), flag="--ood_dir")
    assert "give --ood_dir=DIR" in str(error.value) and "config" not in str(error.value)


def test_a_streamed_set_is_decoded_to_the_shape_that_is_asked_for(tmp_path):
    fixture.write_dataset(tmp_path, "toy", {"train": [2], "test": [5]})
    split, notices = load_outside("tfds/toy", (8, 8, 3), str(tmp_path))
    assert split.images.shape == (5, 8, 8, 3) and not notices
    with pytest.raises(DataError, match="'toy' is not in .*none"):
        load_outside("tfds/toy", (8, 8, 3), str(tmp_path / "none"))

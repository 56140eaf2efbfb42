"""Image files as arrays: sizes, channels, depths, and files that are no images."""

import os

import numpy as np
import pytest
from PIL import Image

from branchnets.data import images
from branchnets.errors import DataError


def _save(path, array, mode=None, **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array), mode).save(path, **settings)
    return path


def _noise(*shape, seed=0):
    return np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)


def test_an_image_of_the_right_shape_is_read_as_it_is(tmp_path):
    for shape in ((5, 7, 3), (5, 7, 4), (5, 7)):
        array = _noise(*shape)
        read = images.read_image(_save(tmp_path / "a.png", array), (*shape[:2], (*shape, 1)[2]))
        np.testing.assert_array_equal(read.reshape(shape), array)
        assert read.dtype == np.uint8 and read.flags.writeable


def test_channels_are_converted(tmp_path):
    grey = _save(tmp_path / "grey.png", _noise(4, 4))
    np.testing.assert_array_equal(
        images.read_image(grey, (4, 4, 3)), np.repeat(_noise(4, 4)[..., None], 3, axis=2)
    )
    colour = _save(tmp_path / "colour.png", np.full((4, 4, 3), (255, 0, 0), np.uint8))
    # Rec. 601: red is 0.299 of the luma.
    np.testing.assert_array_equal(images.read_image(colour, (4, 4, 1)), np.full((4, 4, 1), 76))
    with pytest.raises(DataError, match="1, 3 or 4 channels, not 2"):
        images.read_image(colour, (4, 4, 2))


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path):
    deep = np.array([[0, 257, 32896, 65535]], np.uint16)
    read = images.read_image(_save(tmp_path / "deep.png", deep), (1, 4, 1))
    np.testing.assert_array_equal(read[..., 0], [[0, 1, 128, 255]])


def test_the_shorter_side_is_resized_and_the_longer_one_cropped(tmp_path):
    # Three blocks side by side: only the middle one is left of a square crop.
    array = np.zeros((20, 60, 3), np.uint8)
    array[:, :20], array[:, 20:40], array[:, 40:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    path = _save(tmp_path / "wide.png", array)
    inside = images.read_image(path, (10, 10, 3))[:, 1:-1]
    np.testing.assert_array_equal(inside, np.broadcast_to((0, 255, 0), inside.shape))
    tall = _save(tmp_path / "tall.png", array.transpose(1, 0, 2))
    np.testing.assert_array_equal(
        images.read_image(tall, (10, 10, 3)),
        images.read_image(path, (10, 10, 3)).transpose(1, 0, 2),
    )


def test_resizing_alone_is_pillows(tmp_path):
    array = _noise(16, 24, 3)
    path = _save(tmp_path / "a.png", array)
    expected = Image.fromarray(array).resize((12, 8), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(images.read_image(path, (8, 12, 3)), np.asarray(expected))


def test_a_photograph_is_turned_upright(tmp_path):
    array = _noise(4, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    path = _save(tmp_path / "turned.png", array, exif=exif)
    np.testing.assert_array_equal(images.read_image(path, (6, 4, 3)), np.rot90(array, -1))


def test_what_is_no_image_is_named(tmp_path):
    text = tmp_path / "text.png"
    text.write_text("not an image")
    with pytest.raises(DataError, match=r"text\.png is no image"):
        images.read_image(text, (4, 4, 3))
    whole = _save(tmp_path / "whole.png", _noise(40, 40, 3)).read_bytes()
    half = tmp_path / "half.png"
    half.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"half\.png cannot be read"):
        images.read_image(half, (4, 4, 3))
    with pytest.raises(DataError, match=r"there is no image .*absent\.png"):
        images.read_image(tmp_path / "absent.png", (4, 4, 3))
    with pytest.raises(DataError, match="cannot be read"):
        images.read_image(tmp_path, (4, 4, 3))


def test_a_folder_is_listed_in_order_without_what_is_hidden_or_no_image(tmp_path):
    for name in ("b/2.png", "b/10.PNG", "a.jpg", ".hidden/x.png", "b/.x.png"):
        _save(tmp_path / name, _noise(2, 2, 3), format="PNG")
    (tmp_path / "notes.txt").write_text("")
    found = [os.path.relpath(path, tmp_path) for path in images.list_images(tmp_path)]
    assert found == ["a.jpg", "b/10.PNG", "b/2.png"]
    with pytest.raises(DataError, match="there is no folder"):
        images.list_images(tmp_path / "absent")


def test_links_are_followed_once(tmp_path):
    _save(tmp_path / "all" / "a" / "1.png", _noise(2, 2, 3))
    _save(tmp_path / "elsewhere" / "2.png", _noise(2, 2, 3))
    (tmp_path / "all" / "a" / "up").symlink_to(tmp_path / "all")  # a circle
    (tmp_path / "all" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "all" / "c").symlink_to(tmp_path / "elsewhere")
    found = [
        os.path.relpath(path, tmp_path / "all") for path in images.list_images(tmp_path / "all")
    ]
    assert found == ["a/1.png", "b/2.png"]


def test_zeros_surround_what_is_smaller_than_the_networks_images(tmp_path):
    array = _noise(5, 6, 3)
    path = _save(tmp_path / "a.png", array)
    image = images.open_image(path)
    inside = images.fit(image, (5, 6, 3))
    whole = images.fit(image, (8, 8, 3), (5, 6, 3))
    np.testing.assert_array_equal(whole[1:6, 1:7], inside)
    assert whole.shape == (8, 8, 3) and whole.sum() == inside.sum()
    np.testing.assert_array_equal(images.refit(array[None], (8, 8, 3), (5, 6, 3))[0], whole)
    smaller = images.refit(array[None], (8, 8, 1), (4, 4, 1))[0]
    np.testing.assert_array_equal(smaller[2:6, 2:6], images.fit(image, (4, 4, 1)))


def test_arrays_are_fitted_like_files(tmp_path):
    array = _noise(3, 8, 8, 1)
    fitted = images.refit(array, (4, 4, 3))
    path = _save(tmp_path / "a.png", array[1, ..., 0])
    np.testing.assert_array_equal(fitted[1], images.read_image(path, (4, 4, 3)))
    assert images.refit(array, (8, 8, 1)) is array
    with pytest.raises(DataError, match="1, 3 or 4 channels, not 2"):
        images.refit(_noise(1, 2, 2, 2), (2, 2, 3))

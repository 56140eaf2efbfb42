"""Data at another size: images and their mean are resized once, frames in proportion."""

import numpy as np
import pytest

from branchnets import data
from branchnets.engine import config as configs


def section(**fields):
    config = configs.base("plain")
    config.data.name = "digits"
    return configs.apply_overrides(config, {f"data.{n}": v for n, v in fields.items()}).data


@pytest.mark.parametrize(
    ("fields", "size", "wanted"),
    [
        ({}, 12, (12, None, None)),
        ({"image_size": 16}, 12, (12, None, None)),
        ({"image_size": 16, "crop_size": 12}, 24, (32, None, 24)),
        ({"pad_to": 12}, 24, (16, 24, None)),
    ],
)
def test_frames_grow_with_the_images(fields, size, wanted):
    given = section(**fields)
    changed = data.at_size(given, size)
    assert (changed.image_size, changed.pad_to, changed.crop_size) == wanted
    assert data.spec(None, changed).image_shape == (size, size, 1)
    assert data.at_size(changed, size) == changed  # asked for again, nothing is left to do
    assert given == section(**fields)


def test_a_mean_image_is_that_of_the_resized_images():
    given = section(crop_size=6, per_pixel_mean=True)
    trained, shown = data.load(given), data.load(data.at_size(given, 12))
    mean = data.resized_mean(trained.mean, 6, 12)
    assert np.shape(mean) == (16, 16, 1) == shown.stored_shape
    # Pixels of resized images are rounded to whole numbers.
    np.testing.assert_allclose(mean, shown.mean, atol=0.6 / 255)
    assert data.resized_mean((0.5,), 6, 12) == (0.5,)

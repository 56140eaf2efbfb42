"""Subsets, sizes, crops and the mean image of a dataset."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from branchnets import data
from branchnets.data import prepare
from branchnets.data.base import Dataset, Split
from branchnets.errors import DataError


def make_split(counts=(10, 10, 10), shape=(4, 4, 1), seed=0):
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.random.RandomState(seed).randint(0, 256, (len(labels), *shape)).astype(np.uint8)
    return Split(images, labels)


def make_dataset(**splits):
    channels = next(iter(splits.values())).images.shape[-1]
    return Dataset("toy", ("a", "b", "c"), splits, (0.5,) * channels, (0.5,) * channels)


def test_prepare_holds_out_before_it_shrinks_and_leaves_test_alone():
    dataset = make_dataset(train=make_split(), test=make_split((2, 2, 2)))
    small = prepare.prepare(dataset, SimpleNamespace(validation_size=6, train_size=9))
    all_left = prepare.prepare(dataset, SimpleNamespace(validation_size=6))
    assert {name: len(s) for name, s in small.splits.items()} == {
        "train": 9, "validation": 6, "test": 6,
    }  # fmt: skip
    np.testing.assert_array_equal(
        small.split("validation").images, all_left.split("validation").images
    )
    np.testing.assert_array_equal(small.split("test").images, dataset.split("test").images)
    held = {image.tobytes() for image in small.split("validation").images}
    assert not held & {image.tobytes() for image in small.split("train").images}


@pytest.mark.parametrize(
    "wrong", [{"validation_size": 30}, {"validation_size": -1}, {"train_size": 31}]
)
def test_prepare_refuses_impossible_sizes(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        prepare.prepare(make_dataset(train=make_split()), SimpleNamespace(**wrong))


def test_resize_and_pad():
    split = make_split(shape=(8, 8, 2))
    constant = Split(np.full_like(split.images, 77), split.labels)
    assert np.all(prepare.resize(constant, 16).images == 77)
    assert prepare.resize(split, 8) is split
    padded = prepare.pad(split, 11)
    assert padded.images.shape == (30, 11, 11, 2)
    np.testing.assert_array_equal(padded.images[:, 1:9, 1:9], split.images)
    assert padded.images.sum() == split.images.sum()
    with pytest.raises(ValueError, match="pad_to=7"):
        prepare.pad(split, 7)


def test_the_mean_image_is_that_of_what_is_trained_on():
    dataset = make_dataset(
        train=make_split(shape=(5, 4, 3)), test=make_split(seed=1, shape=(5, 4, 3))
    )
    cfg = SimpleNamespace(per_pixel_mean=True, validation_size=6, train_size=9)
    found = prepare.prepare(dataset, cfg)
    pixels = found.split("train").images.astype(np.float64)
    assert len(pixels) == 9
    np.testing.assert_allclose(found.mean, (pixels / 255).mean(axis=0), rtol=1e-13)
    assert np.shape(found.mean) == (5, 4, 3) and found.std == dataset.std
    # What a run keeps gives back the same numbers.
    assert data.as_mean(json.loads(json.dumps(found.mean))) == found.mean
    assert found.central_mean == data.as_mean(np.array(found.mean)) == found.mean
    assert prepare.prepare(dataset, SimpleNamespace(per_pixel_mean=False)).mean == (0.5,) * 3
    with pytest.raises(DataError, match="no split 'train'"):
        prepare.prepare(make_dataset(test=make_split()), SimpleNamespace(per_pixel_mean=True))


def test_a_border_of_zeros_has_the_mean_zero():
    dataset = make_dataset(train=make_split())
    found = prepare.prepare(dataset, SimpleNamespace(per_pixel_mean=True, pad_to=6))
    mean = np.array(found.mean)
    assert mean[1:5, 1:5].min() > 0 and mean.sum() == mean[1:5, 1:5].sum()


def test_a_crop_is_what_the_network_is_given_and_not_what_is_stored():
    dataset = make_dataset(train=make_split(shape=(9, 8, 1)))
    found = prepare.prepare(dataset, SimpleNamespace(crop_size=5, per_pixel_mean=True))
    assert found.image_shape == found.spec.image_shape == (5, 5, 1)
    assert found.stored_shape == (9, 8, 1) == np.shape(found.mean)
    np.testing.assert_array_equal(found.central_mean, np.array(found.mean)[2:7, 1:6])
    cfg = SimpleNamespace(name="fake", image_size=8, crop_size=5)
    assert data.spec(None, cfg).image_shape == (5, 5, 3)
    assert data.content_shape(cfg) == (8, 8, 3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"crop_size": 9}, "crop_size=9 must lie between 1 and the side of the 8x8.*image_size"),
        ({"crop_size": 0}, "crop_size=0 must lie between 1"),
        ({"crop_size": 4, "pad_to": 10}, "crop_size=4 cuts .*pad_to=10 enlarges.*set one"),
    ],
)
def test_crops_that_there_cannot_be(wrong, message):
    cfg = SimpleNamespace(name="fake", image_size=8, **wrong)
    for ask in (data.load, lambda cfg: data.spec(None, cfg)):
        with pytest.raises(DataError, match=message):
            ask(cfg)


def test_channels_that_a_data_set_does_not_have():
    for name in ("imagenet2012", "digits", "cifar10"):
        cfg = SimpleNamespace(name=name, channels=2)
        with pytest.raises(DataError, match=rf"channels=2: the images of {name} have"):
            data.load(cfg)
    assert data.load(SimpleNamespace(name="digits", channels=1)).image_shape == (8, 8, 1)


def test_framed_cuts_or_surrounds():
    images = make_split(shape=(4, 7, 1)).images
    both = prepare.framed(images, 6, 4)
    np.testing.assert_array_equal(both[:, 1:5], images[:, :, 1:5])
    assert both.shape[1:] == (6, 4, 1) and both.sum() == images[:, :, 1:5].sum()
    assert prepare.framed(images, 4, 7) is images
    with pytest.raises(DataError, match=r"not \[4, 4\]"):
        data.as_mean(np.zeros((4, 4)))

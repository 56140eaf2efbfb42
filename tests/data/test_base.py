from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from branchnets import data
from branchnets.data import base
from branchnets.data.base import Dataset, Split
from branchnets.data.stored import bars


def make_split(counts=(10, 10, 10), shape=(4, 4, 1)):
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.random.RandomState(0).randint(0, 256, (len(labels), *shape)).astype(np.uint8)
    return Split(images, labels)


def make_dataset(**splits):
    return Dataset("toy", ("a", "b", "c"), splits, (0.5,), (0.5,))


def test_split_refuses_wrong_dtypes_and_shapes():
    images, labels = np.zeros((3, 4, 4, 1), np.uint8), np.zeros(3, np.int32)
    with pytest.raises(TypeError, match="uint8.*float32"):
        Split(images.astype(np.float32), labels)
    with pytest.raises(ValueError, match=r"\[n, H, W, C\].*\(3, 4, 4\)"):
        Split(images[..., 0], labels)
    with pytest.raises(TypeError, match="integers"):
        Split(images, labels.astype(np.float32))
    with pytest.raises(ValueError, match="n = 3"):
        Split(images, labels[:2])


def test_labels_are_int32_and_outside_the_classes_refused():
    split = Split(np.zeros((3, 2, 2, 1), np.uint8), np.array([0, 2, 3], np.int64))
    assert split.labels.dtype == np.int32
    with pytest.raises(ValueError, match="toy/train: label 3 of example 2 .* 3 classes 0..2"):
        make_dataset(train=split)
    with pytest.raises(ValueError, match="label -1"):
        base.check_labels(np.array([0, -1]), 3, "x")


def test_dataset_refuses_uneven_splits_and_statistics():
    with pytest.raises(ValueError, match="image shapes differ"):
        make_dataset(train=make_split(), test=make_split(shape=(5, 4, 1)))
    with pytest.raises(ValueError, match="3 channels but 1 means"):
        make_dataset(train=make_split(shape=(4, 4, 3)))
    split = make_split()
    for shape in ((4, 4), (3, 4, 1), (1, 4, 4, 1)):
        with pytest.raises(ValueError, match="mean image of shape|channels but"):
            Dataset("toy", tuple("abc"), {"train": split}, np.zeros(shape).tolist(), (0.5,))
    with pytest.raises(ValueError, match="crop of 5 pixels square does not fit into its 4x4"):
        Dataset("toy", tuple("abc"), {"train": split}, (0.5,), (0.5,), crop_size=5)
    dataset = make_dataset(train=split)
    assert dataset.image_shape == (4, 4, 1) and dataset.num_classes == 3
    with pytest.raises(ValueError, match="no split 'validation'.*validation_size"):
        dataset.split("validation")


@pytest.mark.parametrize("size", [0, 1, 3, 10, 17, 35])
def test_balanced_indices_are_as_even_as_the_classes_allow(size):
    labels = np.repeat(np.arange(4), [20, 20, 3, 20])
    chosen = base.balanced_indices(labels, size, seed=5)
    assert len(chosen) == size == len(np.unique(chosen))
    assert np.all(np.diff(chosen) > 0)
    counts = np.bincount(labels[chosen], minlength=4)
    assert np.ptp(counts[[0, 1, 3]]) <= 1
    assert counts[2] == min(3, counts[2]) and counts[2] >= min(3, size // 4)


def test_balanced_indices_take_all_and_refuse_more():
    labels = np.array([0, 0, 1, 5])
    np.testing.assert_array_equal(base.balanced_indices(labels, 4, 0), np.arange(4))
    with pytest.raises(ValueError, match="5 of 4"):
        base.balanced_indices(labels, 5, 0)


def test_balanced_indices_are_fixed_for_ever():
    chosen = base.balanced_indices(np.arange(40) % 4, 8, seed=3)
    np.testing.assert_array_equal(chosen, [2, 13, 16, 19, 22, 24, 33, 39])
    assert not np.array_equal(chosen, base.balanced_indices(np.arange(40) % 4, 8, seed=4))


def test_hold_out_divides():
    split = make_split()
    rest, held = base.hold_out(split, 6, seed=1)
    assert len(rest) == 24 and len(held) == 6
    np.testing.assert_array_equal(np.bincount(held.labels), [2, 2, 2])
    both = {image.tobytes() for part in (rest, held) for image in part.images}
    assert both == {image.tobytes() for image in split.images}


def test_unknown_dataset_names_the_nearest_and_all():
    with pytest.raises(ValueError, match="'digit'. Did you mean 'digits'.*Known:.*fake"):
        data.load(SimpleNamespace(name="digit"))
    with pytest.raises(ValueError, match="unknown dataset None"):
        data.load(SimpleNamespace())


@pytest.mark.parametrize("name", ["digits", "fake"])
@pytest.mark.parametrize(
    "size",
    [
        {},
        {"image_size": 16},
        {"image_size": 12, "pad_to": 20},
        {"image_size": 12, "crop_size": 7, "per_pixel_mean": True},
    ],
)
def test_spec_without_data_equals_spec_with_it(name, size):
    cfg = SimpleNamespace(name=name, **size)
    dataset = data.load(cfg)
    assert data.spec(None, cfg) == data.spec(dataset, cfg)
    assert data.spec(dataset, cfg).image_shape == dataset.image_shape


def test_load_takes_a_config_dict_with_placeholders():
    config_dict = pytest.importorskip("ml_collections").config_dict
    cfg = config_dict.ConfigDict(
        {
            "name": "digits",
            "validation_size": config_dict.placeholder(int),
            "train_size": config_dict.placeholder(int),
            "image_size": config_dict.placeholder(int),
        }
    )
    assert len(data.load(cfg).split("train")) == 1257
    cfg.train_size, cfg.image_size = 100, 16
    dataset = data.load(cfg)
    assert dataset.split("train").images.shape == (100, 16, 16, 1)
    assert dataset.split("test").images.shape == (360, 16, 16, 1)


def test_one_pixel_tells_images_apart():
    split = make_split()
    other = Split(split.images.copy(), split.labels)
    assert base.pixels(other) == base.pixels(split) and base.identity(other) == base.identity(split)
    other.images[5, 1, 2, 0] ^= 1
    assert base.pixels(other) != base.pixels(split) and base.identity(other) == base.identity(split)
    turned = Split(np.asfortranarray(split.images), split.labels)  # however it lies in memory
    assert base.pixels(turned) == base.pixels(split)


def test_the_first_process_alone_shows_bars(capsys, monkeypatch):
    assert list(bars.bar(range(2), "some", 2)) == [0, 1]
    assert "some" in capsys.readouterr().err
    monkeypatch.setattr(bars.global_state, "process_id", 1)
    assert list(bars.bar(range(2), "some", 2)) == [0, 1]
    assert capsys.readouterr().err == ""

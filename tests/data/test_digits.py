from __future__ import annotations

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest

from branchnets.data.sets import digits


def sha(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def test_equals_scikit_learn():
    theirs = pytest.importorskip("sklearn.datasets").load_digits()
    images, labels = digits.raw()
    np.testing.assert_array_equal(images, theirs.images)
    np.testing.assert_array_equal(labels, theirs.target)


def test_splits_partition_the_1797():
    images, _ = digits.raw()
    dataset = digits.read()
    sizes = {name: len(split) for name, split in dataset.splits.items()}
    assert sizes == {"train": 1257, "validation": 180, "test": 360}
    np.testing.assert_array_equal(np.bincount(dataset.split("test").labels), [36] * 10)
    np.testing.assert_array_equal(np.bincount(dataset.split("validation").labels), [18] * 10)
    ours = sorted(im.tobytes() for split in dataset.splits.values() for im in split.images)
    scaled = np.round(images * (255 / 16)).astype(np.uint8)
    assert ours == sorted(im.tobytes() for im in scaled)
    assert dataset.split("train").images.max() == 255


def test_split_is_pinned():
    dataset = digits.read()
    assert sha(dataset.split("test").images) == "9c9c2d89d8241f82"
    assert sha(dataset.split("validation").images) == "4240cf7d4529a848"


def test_split_seed_moves_validation_but_never_test():
    default, other = digits.read(), digits.read(SimpleNamespace(split_seed=7))
    assert sha(default.split("test").images) == sha(other.split("test").images)
    assert sha(default.split("validation").images) != sha(other.split("validation").images)


def test_validation_size_zero_keeps_all_for_training():
    dataset = digits.read(SimpleNamespace(validation_size=0))
    assert set(dataset.splits) == {"train", "test"} and len(dataset.split("train")) == 1437


def test_statistics_are_those_of_the_training_split():
    pixels = digits.read().split("train").images / 255.0
    np.testing.assert_allclose(pixels.mean((0, 1, 2)), digits.MEAN, atol=5e-5)
    np.testing.assert_allclose(pixels.std((0, 1, 2)), digits.STD, atol=5e-5)

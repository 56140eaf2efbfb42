from __future__ import annotations

import io
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from branchnets import data
from branchnets.data.images import fit


def test_fake_has_the_asked_size_and_is_deterministic():
    cfg = SimpleNamespace(name="fake", num_classes=7, fake_size=43, image_size=20, channels=1)
    one, two = data.load(cfg), data.load(cfg)
    assert one.image_shape == (20, 20, 1) and one.num_classes == 7
    assert (len(one.split("train")), len(one.split("test"))) == (43, 10)
    for name in one.splits:
        np.testing.assert_array_equal(one.split(name).images, two.split(name).images)


def test_fake_classes_can_be_told_apart():
    dataset = data.load(SimpleNamespace(name="fake", num_classes=10, fake_size=200))
    train, test = dataset.split("train"), dataset.split("test")
    means = np.stack([train.images[train.labels == k].mean(0) for k in range(10)])
    distance = ((test.images[:, None] - means) ** 2).sum((2, 3, 4))
    assert (distance.argmin(1) == test.labels).mean() > 0.99


def test_more_classes_than_images_is_allowed_but_no_images_is_not():
    dataset = data.load(SimpleNamespace(name="fake", num_classes=1000, fake_size=8))
    assert dataset.num_classes == 1000
    with pytest.raises(ValueError, match="at least 1"):
        data.load(SimpleNamespace(name="fake", fake_size=0))


def test_streamed_images_are_files_of_many_sizes_and_of_the_same_classes():
    cfg = SimpleNamespace(name="fake", num_classes=5, fake_size=20, image_size=16, stream=True)
    dataset = data.load(cfg)
    train = dataset.split("train")
    assert dataset.streamed and dataset.image_shape == (16, 16, 3)
    assert (len(train), len(dataset.split("test"))) == (20, 5)
    held = data.load(SimpleNamespace(name="fake", num_classes=5, fake_size=200, image_size=16))
    means = np.stack(
        [held.split("train").images[held.split("train").labels == k].mean(0) for k in range(5)]
    )
    sizes, forms = set(), set()
    for i in range(20):
        example = train[i]
        image = Image.open(io.BytesIO(example.data))
        sizes.add(image.size)
        forms.add(image.format)
        assert 16 <= image.width <= 32 and 16 <= image.height <= 32
        pixels = fit(image, (16, 16, 3)).astype(float)
        nearest = ((pixels - means) ** 2).sum((1, 2, 3)).argmin()
        assert example.label == nearest == train.labels[i]
    assert len(sizes) > 10 and forms == {"JPEG", "PNG"}
    assert pickle.loads(pickle.dumps(train))[3] == train[3]

from __future__ import annotations

import dataclasses
import functools
import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from branchnets import data
from branchnets.data import Augment, Dataset, EvalInput, ResidentInput, Split
from branchnets.data.prepare import prepare


def make_dataset(n=23, size=4):
    """Image i is constant i, label i mod 5."""
    images = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, size, size, 3))
    split = Split(np.ascontiguousarray(images), np.arange(n) % 5)
    return Dataset("toy", tuple("abcde"), {"train": split}, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))


def resident(dataset, batch_size=5, seed=0, mesh=None, **augment):
    return ResidentInput(
        dataset.split("train"), dataset, Augment(**augment), batch_size, seed, mesh
    )


@functools.cache
def jitted(inputs):
    return jax.jit(inputs.batch)


def draw(inputs, step, key=0):
    return jitted(inputs)(inputs.arrays(step), np.int32(step), jax.random.key(key))


def pixel(dataset, batch):
    mean, std = np.array(dataset.mean), np.array(dataset.std)
    raw = (np.asarray(batch["image"]) * std + mean) * 255
    np.testing.assert_allclose(raw, np.round(raw), atol=1e-3)
    return np.round(raw).astype(int)


def test_epoch_visits_distinct_examples_and_drops_the_remainder():
    dataset = make_dataset()
    inputs = resident(dataset)
    assert inputs.steps_per_epoch == 4
    epochs = []
    for epoch in range(2):
        seen = []
        for step in range(4 * epoch, 4 * epoch + 4):
            batch = draw(inputs, step)
            values = pixel(dataset, batch)
            assert np.all(values == values[:, :1, :1, :1])
            seen.extend(values[:, 0, 0, 0])
            np.testing.assert_array_equal(batch["label"], values[:, 0, 0, 0] % 5)
            assert batch["label"].dtype == np.int32 and batch["image"].dtype == np.float32
        assert len(set(seen)) == 20
        epochs.append(seen)
    assert epochs[0] != epochs[1]


def test_normalisation_is_x_over_255_minus_mean_over_std():
    dataset = make_dataset()
    inputs = resident(dataset, batch_size=23)
    batch = draw(inputs, 0)
    order = np.asarray(inputs.arrays(0)["order"])
    want = (order[:, None] / 255 - np.array(dataset.mean)) / np.array(dataset.std)
    np.testing.assert_allclose(batch["image"][:, 2, 1], want, atol=1e-6)


@pytest.fixture(scope="module")
def cropped():
    """Twelve images of 7x6, every one different, of which the network gets 4x4."""
    random = np.random.RandomState(0)
    images = random.randint(0, 256, (12, 7, 6, 3)).astype(np.uint8)
    raw = Dataset(
        "toy", ("a", "b"), {"train": Split(images, np.arange(12) % 2)}, (0.5,) * 3, (0.2, 0.3, 0.4)
    )
    return prepare(raw, SimpleNamespace(crop_size=4, per_pixel_mean=True))


@pytest.mark.parametrize("padding", [0, 2])
def test_the_mean_image_is_subtracted_before_the_crop(cropped, padding):
    inputs = resident(cropped, batch_size=12, crop_padding=padding, flip=True)
    out = np.asarray(draw(inputs, 0)["image"])
    assert out.shape == (12, 4, 4, 3)
    images = cropped.split("train").images / 255
    pixels = (images - images.mean(axis=0)) / np.array(cropped.std)
    width = [(0, 0), (padding, padding), (padding, padding), (0, 0)]
    places, flips = set(), set()
    for crop, i in zip(out, np.asarray(inputs.arrays(0)["order"]), strict=True):
        padded = np.pad(pixels, width)[i]
        both = [(flip, padded[:, :: 1 - 2 * flip]) for flip in (0, 1)]
        found = [
            (top, left, flip)
            for top in range(4 + 2 * padding)
            for left in range(3 + 2 * padding)
            for flip, image in both
            if np.allclose(image[top : top + 4, left : left + 4], crop, atol=1e-5)
        ]
        assert len(found) == 1
        places.add(found[0][:2])
        flips.add(found[0][2])
    assert len(places) > 3 and flips == {0, 1}


def test_evaluation_takes_the_middle(cropped):
    split = cropped.split("train")
    (batch,) = EvalInput(split, cropped, 12)
    images = split.images / 255
    want = ((images - images.mean(axis=0)) / np.array(cropped.std))[:, 1:5, 1:5]
    np.testing.assert_allclose(batch["image"], want, atol=1e-5)
    # Images of the network's own shape are taken as they are.
    small = Split(np.ascontiguousarray(split.images[:, 1:5, 1:5]), split.labels)
    (again,) = EvalInput(small, cropped, 12)
    np.testing.assert_array_equal(again["image"], batch["image"])


def test_a_mean_image_moves_with_randaugment_too(cropped):
    settings = {"crop_padding": 1, "randaugment_layers": 2, "randaugment_magnitude": 9.0}
    for order in ("crop_first", "randaugment_first"):
        inputs = resident(cropped, batch_size=12, order=order, **settings)
        one, again = draw(inputs, 0, 1)["image"], draw(inputs, 0, 1)["image"]
        assert one.shape == (12, 4, 4, 3) and np.isfinite(one).all()
        np.testing.assert_array_equal(one, again)
        assert not np.array_equal(one, draw(inputs, 0, 2)["image"])


def test_order_is_a_function_of_seed_and_epoch():
    dataset = make_dataset()
    one, two = resident(dataset, seed=3), resident(dataset, seed=3)
    orders = [np.asarray(one.arrays(step)["order"]) for step in (0, 3, 4, 9)]
    np.testing.assert_array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[1], orders[2])
    np.testing.assert_array_equal(two.arrays(9)["order"], orders[3])  # without the steps before
    np.testing.assert_array_equal(two.arrays(0)["order"], orders[0])  # and back
    other = resident(dataset, seed=4).arrays(0)["order"]
    assert not np.array_equal(other, orders[0])
    np.testing.assert_array_equal(np.sort(orders[0]), np.arange(23))


def test_order_is_computed_only_when_the_epoch_changes():
    inputs = resident(make_dataset())
    assert inputs.arrays(0)["order"] is inputs.arrays(3)["order"]
    assert inputs.arrays(0)["images"] is inputs.arrays(4)["images"]


def test_batch_depends_on_the_key_only_through_augmentation():
    dataset = make_dataset()
    plain, cropped = resident(dataset), resident(dataset, crop_padding=2)
    np.testing.assert_array_equal(draw(plain, 0, 1)["image"], draw(plain, 0, 2)["image"])
    np.testing.assert_array_equal(draw(cropped, 0, 1)["image"], draw(cropped, 0, 1)["image"])
    assert not np.array_equal(draw(cropped, 0, 1)["image"], draw(cropped, 0, 2)["image"])


def test_mesh_of_one_equals_no_mesh():
    dataset = make_dataset()
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    kwargs = {"crop_padding": 1, "flip": True}
    one, two = resident(dataset, **kwargs), resident(dataset, mesh=mesh, **kwargs)
    np.testing.assert_array_equal(draw(one, 6)["image"], draw(two, 6)["image"])
    evals = [list(EvalInput(dataset.split("train"), dataset, 8, m)) for m in (None, mesh)]
    jax.tree.map(np.testing.assert_array_equal, *evals)


def test_eval_visits_each_example_once_and_masks_the_padding():
    dataset = make_dataset()
    inputs = EvalInput(dataset.split("train"), dataset, batch_size=8)
    for _ in range(2):
        batches = list(inputs)
        assert len(batches) == len(inputs) == 3
        assert all(batch["image"].shape == (8, 4, 4, 3) for batch in batches)
        mask = np.concatenate([batch["mask"] for batch in batches])
        labels = np.concatenate([batch["label"] for batch in batches])
        pixels = np.concatenate([pixel(dataset, batch) for batch in batches])[:, 0, 0, 0]
        np.testing.assert_array_equal(mask, [1] * 23 + [0])
        np.testing.assert_array_equal(pixels, [*range(23), 0])
        np.testing.assert_array_equal(labels, [*(np.arange(23) % 5), 0])
        assert mask.dtype == np.float32
    np.testing.assert_array_equal(inputs.labels, np.arange(23) % 5)
    assert inputs.labels.dtype == np.int32


def test_errors_say_what_to_do():
    dataset = make_dataset()
    split = dataset.split("train")
    with pytest.raises(ValueError, match="23 examples, fewer than one batch of 24"):
        resident(dataset, batch_size=24)
    with pytest.raises(ValueError, match="batch_size=0"):
        resident(dataset, batch_size=0)
    with pytest.raises(ValueError, match="empty"):
        EvalInput(split.take(np.arange(0)), dataset, 4)
    moved = dataclasses.replace(dataset, mean=data.as_mean(np.zeros((5, 5, 3))))
    with pytest.raises(ValueError, match=r"mean image of 'toy' has shape \(5, 5, 3\)"):
        resident(moved)
    with pytest.raises(ValueError, match="augment.order='flip_first'"):
        resident(dataset, order="flip_first")
    with pytest.raises(ValueError, match="magnitude=11"):
        resident(dataset, randaugment_magnitude=11)


def test_batch_must_divide_over_the_mesh():
    class FourDevices:  # the check reads nothing but the axis size
        shape = {"data": 4}

    from branchnets.data.device.resident import check_batch_size

    check_batch_size(8, FourDevices())
    with pytest.raises(ValueError, match="batch_size=10 .* 4 devices; 8 or 12 would"):
        check_batch_size(10, FourDevices())
    with pytest.raises(ValueError, match="eval.batch_size=3 .* 4 or 8 would"):
        check_batch_size(3, FourDevices(), "eval.batch_size")


@pytest.mark.parametrize("sizes", [{}, {"crop_size": 12, "per_pixel_mean": True}])
def test_eight_devices_give_the_batches_of_one_without_communication(sizes):
    if len(jax.devices()) < 8:
        pytest.skip("needs eight devices (tests/conftest.py simulates them on CPU)")
    dataset = data.load(SimpleNamespace(name="fake", fake_size=150, image_size=16, **sizes))
    mesh = Mesh(np.array(jax.devices()[:8]), ("data",))
    augment = {
        "crop_padding": 2,
        "flip": True,
        "randaugment_layers": 2,
        "randaugment_magnitude": 7.0,
    }
    one, eight = (resident(dataset, 32, mesh=m, **augment) for m in (None, mesh))
    for step in (0, 5):
        a, b = draw(one, step, step), draw(eight, step, step)
        assert b["image"].sharding.spec == PartitionSpec("data")
        np.testing.assert_array_equal(a["image"], b["image"])
        np.testing.assert_array_equal(a["label"], b["label"])
    arguments = eight.arrays(0), np.int32(0), jax.random.key(0)
    compiled = jitted(eight).lower(*arguments).compile().as_text()
    assert not re.findall(r"all-reduce|all-gather|all-to-all|collective-permute", compiled)
    test = dataset.split("test")
    for a, b in zip(*(EvalInput(test, dataset, 16, m) for m in (None, mesh)), strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)
        assert b["mask"].sharding.spec == PartitionSpec("data")

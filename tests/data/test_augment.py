from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from branchnets.data.device.augment import Augment, augment, normalize, pad_crop, random_flip
from branchnets.data.device.randaugment import rand_augment

MEAN = (0.5, 0.4, 0.3)


def numbered(batch, size=6):
    """Images whose every pixel is different (and none is zero), the same for each example."""
    image = np.arange(1, size * size + 1, dtype=np.uint8).reshape(1, size, size, 1)
    return np.tile(image, (batch, 1, 1, 3))


def test_pad_crop_takes_every_place_equally_often():
    batch, padding = 5000, 2
    images = numbered(batch)
    out = np.asarray(jax.jit(pad_crop, static_argnums=2)(jax.random.key(0), images, padding))
    padded = np.pad(images[0], ((padding, padding), (padding, padding), (0, 0)))
    places = [(top, left) for top in range(5) for left in range(5)]
    counts = [
        (out == padded[top : top + 6, left : left + 6]).all((1, 2, 3)).sum() for top, left in places
    ]
    assert sum(counts) == batch
    expected = batch / len(places)
    chi2 = sum((count - expected) ** 2 for count in counts) / expected
    assert chi2 < 52  # 24 degrees of freedom: exceeded once in 1,200
    assert out.dtype == np.uint8


def test_a_smaller_crop_takes_every_place_equally_often():
    batch = 4000
    images = numbered(batch)
    out = np.asarray(jax.jit(pad_crop, static_argnums=(2, 3))(jax.random.key(2), images, 0, (3, 5)))
    assert out.shape == (batch, 3, 5, 3)
    places = [(top, left) for top in range(4) for left in range(2)]
    counts = [
        (out == images[0, top : top + 3, left : left + 5]).all((1, 2, 3)).sum()
        for top, left in places
    ]
    assert sum(counts) == batch
    expected = batch / len(places)
    assert sum((count - expected) ** 2 for count in counts) / expected < 24.4  # p = 0.001, 7 d.o.f.


def test_flip_mirrors_half_of_the_images():
    batch = 4000
    images = numbered(batch)
    out = np.asarray(random_flip(jax.random.key(1), images))
    flipped = (out == images[:, :, ::-1]).all((1, 2, 3))
    kept = (out == images).all((1, 2, 3))
    assert np.all(flipped ^ kept)
    assert abs(flipped.sum() - batch / 2) < 4 * (batch / 4) ** 0.5


def test_normalize_against_numpy():
    images = np.random.RandomState(0).randint(0, 256, (2, 3, 3, 3)).astype(np.uint8)
    std = (0.1, 0.2, 0.3)
    want = (images / 255 - np.array(MEAN)) / np.array(std)
    out = normalize(images, MEAN, std)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, want, rtol=1e-6, atol=1e-6)


def test_no_augmentation_changes_nothing():
    images = numbered(4)
    np.testing.assert_array_equal(augment(jax.random.key(0), images, Augment(), MEAN), images)


def test_order_is_as_configured():
    images = jnp.asarray(np.random.RandomState(0).randint(0, 256, (8, 8, 8, 3)), jnp.uint8)
    key = jax.random.key(3)
    crop_key, flip_key, rand_key = (jax.random.fold_in(key, i) for i in range(3))

    @jax.jit
    def crop_flip(images):
        return random_flip(flip_key, pad_crop(crop_key, images, 2))

    @jax.jit
    def rand(images):
        return rand_augment(rand_key, images, 2, 8.0, MEAN)

    def configured(order):
        config = Augment(2, True, 2, 8.0, order)
        return np.asarray(jax.jit(lambda key: augment(key, images, config, MEAN))(key))

    first, second = configured("crop_first"), configured("randaugment_first")
    np.testing.assert_array_equal(first, rand(crop_flip(images)))
    np.testing.assert_array_equal(second, crop_flip(rand(images)))
    assert not np.array_equal(first, second)


def test_from_config_fills_in_defaults_and_refuses_nonsense():
    cfg = SimpleNamespace(crop_padding=4, flip=None)
    assert Augment.from_config(cfg) == Augment(crop_padding=4)
    with pytest.raises(ValueError, match="crop_padding"):
        Augment(crop_padding=-1)
    with pytest.raises(ValueError, match="order='x'; it is one of crop_first"):
        Augment(order="x")

"""RandAugment's operations against Pillow on photographs (and on grey digits)."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from branchnets.data.base import Split
from branchnets.data.device.randaugment import OPERATIONS, apply_op, rand_augment
from branchnets.data.prepare import resize
from branchnets.data.sets import digits

MEAN = (0.4914, 0.4822, 0.4465)
WARPS = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")
MAGNITUDES = (0, 2, 4, 7.5, 10)


@functools.cache
def photographs() -> np.ndarray:
    """48 real colour images of 32x32: crops of scikit-learn's two photographs, at three scales."""
    photos = pytest.importorskip("sklearn.datasets").load_sample_images().images
    random = np.random.RandomState(0)
    out = []
    for i in range(48):
        photo, side = photos[i % 2], (32, 96, 256)[i % 3]
        top = random.randint(photo.shape[0] - side)
        left = random.randint(photo.shape[1] - side)
        crop = Image.fromarray(photo[top : top + side, left : left + side])
        out.append(np.asarray(crop.resize((32, 32), Image.Resampling.BILINEAR)))
    return np.stack(out)


@functools.cache
def edge_cases() -> np.ndarray:
    """Images whose channels are constant, two-valued, narrow, or full of ties."""
    random = np.random.RandomState(1)
    images = [np.full((32, 32, 3), 77), np.full((32, 32, 3), 0), np.full((32, 32, 3), 255)]
    images += [random.choice([3, 200], (32, 32, 3), p=[0.95, 0.05]) for _ in range(2)]
    for _ in range(20):
        low = random.randint(0, 255)
        images.append(random.randint(low, random.randint(low + 1, 257), (32, 32, 3)))
    return np.stack(images).astype(np.uint8)


@functools.cache
def grey_digits() -> np.ndarray:
    test = digits.read().split("test")
    return resize(Split(test.images[:24], test.labels[:24]), 16).images


def pillow(image: Image.Image, op: str, m: float, sign: int) -> Image.Image:
    """The operation as timm defines it, by Pillow."""
    m = m / 10
    width, height = image.size
    fill = tuple(min(255, round(255 * value)) for value in MEAN)
    warp = {
        "ShearX": (1, sign * 0.3 * m, 0, 0, 1, 0),
        "ShearY": (1, 0, 0, sign * 0.3 * m, 1, 0),
        "TranslateXRel": (1, 0, sign * 0.45 * m * width, 0, 1, 0),
        "TranslateYRel": (1, 0, 0, 0, 1, sign * 0.45 * m * height),
    }
    if image.mode == "L":
        fill = fill[0]
    bilinear = Image.Resampling.BILINEAR
    if op == "Rotate":
        return image.rotate(sign * 30 * m, resample=bilinear, fillcolor=fill)
    if op in warp:
        affine = Image.Transform.AFFINE
        return image.transform(image.size, affine, warp[op], resample=bilinear, fillcolor=fill)
    if op == "AutoContrast":
        return ImageOps.autocontrast(image)
    if op == "Equalize":
        return ImageOps.equalize(image)
    if op == "Invert":
        return ImageOps.invert(image)
    if op == "Posterize":
        bits = int(4 * m)  # no bits: Pillow once blackened the image, and now refuses
        return ImageOps.posterize(image, bits) if bits else Image.new(image.mode, image.size)
    if op == "Solarize":
        return ImageOps.solarize(image, int(256 * m))
    if op == "SolarizeAdd":
        lut = [min(255, i + int(110 * m)) if i < 128 else i for i in range(256)]
        return image.point(lut * len(image.getbands()))
    return getattr(ImageEnhance, op)(image).enhance(1.8 * m + 0.1)


def pillow_batch(images: np.ndarray, op: str, m: float, sign: int = 1) -> np.ndarray:
    grey = images.shape[-1] == 1
    pictures = (Image.fromarray(image[..., 0] if grey else image) for image in images)
    out = np.stack([np.asarray(pillow(picture, op, m, sign)) for picture in pictures])
    return out[..., None] if grey else out


def ours_batch(images: np.ndarray, op: str, m: float, sign: int = 1) -> np.ndarray:
    return np.asarray(apply_op(images, op, m, sign, MEAN[: images.shape[-1]]))


@pytest.mark.parametrize("op", [op for op in OPERATIONS if op not in WARPS])
@pytest.mark.parametrize("source", [photographs, edge_cases, grey_digits])
def test_lookups_and_blends_equal_pillow(op, source):
    images = source()
    has_magnitude = op not in ("AutoContrast", "Equalize", "Invert")
    for m in MAGNITUDES if has_magnitude else (4,):
        ours = ours_batch(images, op, m)
        np.testing.assert_array_equal(ours, pillow_batch(images, op, m), err_msg=f"m={m}")
        assert ours.dtype == np.uint8


@pytest.mark.parametrize("op", WARPS)
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("source", [photographs, grey_digits])
def test_warps_are_within_one_level_of_pillow(op, sign, source):
    """Float32 against float64 coordinates: at most one level, where the exact value is whole.

    Such ties are rare under a rotation, and up to one pixel in twenty where shift and pixel
    values are both simple fractions.
    """
    images, limit = source(), 0.001 if op == "Rotate" else 0.08
    for m in MAGNITUDES:
        ours = ours_batch(images, op, m, sign).astype(int)
        difference = np.abs(ours - pillow_batch(images, op, m, sign))
        assert difference.max() <= 1, f"m={m}"
        assert (difference > 0).mean() < limit, f"m={m}"
        assert m == 0 or (ours != images).mean() > 0.1  # it did something


def test_autocontrast_equals_pillow_for_every_pair_of_extremes():
    """All 32,640 (low, high) at once: as channels they share one call, in Pillow one table each."""
    from branchnets.data.device.randaugment import _autocontrast

    low, high = np.triu_indices(256, 1)
    ours = np.asarray(jax.jit(_autocontrast)(jnp.asarray(low), jnp.asarray(high)))
    for i in range(0, len(low), 7):
        a, b = int(low[i]), int(high[i])
        ramp = np.arange(a, b + 1, dtype=np.uint8)[None]
        theirs = np.asarray(ImageOps.autocontrast(Image.fromarray(ramp)))[0]
        np.testing.assert_array_equal(ours[i, a : b + 1], theirs, err_msg=f"{a}..{b}")


def test_posterize_at_magnitude_two_blackens():
    assert not np.asarray(apply_op(photographs(), "Posterize", 2)).any()


def test_draws_are_uniform_applied_half_the_time_and_signed_evenly():
    """A one-layer result is matched against each operation applied to the same image."""
    image, count, m = photographs()[7][:16, :16], 3000, 6.0
    images = jnp.asarray(np.tile(image, (count, 1, 1, 1)))
    drawn = jax.jit(lambda key, x: rand_augment(key, x, 1, m, MEAN))(jax.random.key(0), images)
    drawn = np.asarray(drawn).reshape(count, -1).astype(int)
    table = {("none", 1): image}
    for op in OPERATIONS:
        for sign in (1, -1) if op in WARPS else (1,):
            table[op, sign] = ours_batch(image[None], op, m, sign)[0]
    # Within one level: two compilations may round a warp's coordinates differently.
    counts = {
        name: int((np.abs(drawn - outcome.reshape(-1)) <= 1).all(1).sum())
        for name, outcome in table.items()
    }
    assert sum(counts.values()) == count, "every result is one of the operations"

    def close(name, probability):
        spread = (count * probability * (1 - probability)) ** 0.5
        assert abs(counts[name] - count * probability) < 4.5 * spread, (name, counts[name])

    close(("none", 1), 1 / 2)
    for op in OPERATIONS:
        for sign in (1, -1) if op in WARPS else (1,):
            close((op, sign), 1 / 60 if op in WARPS else 1 / 30)


def test_layers_compose_and_keys_decide():
    images = photographs()
    run = jax.jit(lambda key: rand_augment(key, images, 3, 4.0, MEAN))
    one, same, other = (np.asarray(run(jax.random.key(k))) for k in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    untouched = (one == images).reshape(len(images), -1).all(1).mean()
    assert untouched < 0.4  # 1/8 of the images see no operation; some operations change nothing


def test_two_channels_are_refused():
    with pytest.raises(ValueError, match="2 channels"):
        apply_op(np.zeros((1, 8, 8, 2), np.uint8), "Invert", 1)

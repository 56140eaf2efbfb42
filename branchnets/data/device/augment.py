"""Augmentation of a whole batch on the device, inside the jitted step.

Images are integer pixels 0..255, [B, H, W, C]; every example draws its own parameters. Shapes are
static and no example looks at another, so a batch sharded over devices needs no communication.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from branchnets.data.base import field
from branchnets.data.device.randaugment import rand_augment
from branchnets.errors import DataError

ORDERS = ("crop_first", "randaugment_first")


@dataclass(frozen=True)
class Augment:
    """Which augmentations, in which order.

    Attributes:
      crop_padding: zeros put around the image before it is cropped, to its own size or to
        `data.crop_size`.
      flip: mirror left-right with probability 1/2.
      randaugment_layers: n of RandAugment; 0 = none.
      randaugment_magnitude: m of RandAugment, 0..10.
      order: "crop_first" (crop, flip, RandAugment: Coded ResNeXt, appendix B) or
        "randaugment_first" (RandAugment, crop, flip: its authors' CIFAR code).
      crop_area: of a random resized crop of a streamed image, the range of its share of the
        image's area; None = no such crop.
      crop_ratio: the range of its width over its height.
      mixup: alpha of mixup; 0 = off.
      cutmix: alpha of cutmix; 0 = off.
    """

    crop_padding: int = 0
    flip: bool = False
    randaugment_layers: int = 0
    randaugment_magnitude: float = 0.0
    order: str = "crop_first"
    crop_area: tuple[float, float] | None = None
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise DataError(f"augment.order={self.order!r}; it is one of {', '.join(ORDERS)}")
        if self.crop_padding < 0 or self.randaugment_layers < 0:
            raise DataError("augment.crop_padding and augment.randaugment_layers must be >= 0")
        if not 0 <= self.randaugment_magnitude <= 10:
            raise DataError(
                f"augment.randaugment_magnitude={self.randaugment_magnitude} is outside 0..10"
            )
        if not (self.mixup >= 0 and self.cutmix >= 0):
            raise DataError(
                f"augment.mixup={self.mixup} and augment.cutmix={self.cutmix} are the alphas of "
                "beta distributions; give numbers above 0, or 0 for none"
            )

    @classmethod
    def from_config(cls, cfg: Any) -> Augment:
        """From a config's `augment` section; absent or empty fields keep their defaults."""
        names = cls.__dataclass_fields__
        return cls(**{name: field(cfg, name, names[name].default) for name in names})


def normalize(images: jax.Array, mean: Any, std: Sequence[float]) -> jax.Array:
    """(x / 255 - mean) / std: [B, H, W, C] pixels 0..255 -> float32.

    Args:
      images: pixels.
      mean: [C], [H, W, C] or [B, H, W, C].
      std: [C].
    """
    centre, spread = (jnp.asarray(value, jnp.float32) for value in (mean, std))
    return (images.astype(jnp.float32) / 255.0 - centre) / spread


def pad_crop(
    key: jax.Array, images: jax.Array, padding: int, size: tuple[int, int] | None = None
) -> jax.Array:
    """Surround each image with `padding` zeros and cut a part out at a uniformly random place.

    Args:
      key: random key.
      images: [B, H, W, C], any dtype.
      padding: pixels on each side.
      size: (h, w) of the part, by default (H, W); each of the (H + 2·padding - h + 1) ·
        (W + 2·padding - w + 1) places is equally likely.

    Returns:
      [B, h, w, C] of the same dtype.
    """
    batch, channels = len(images), images.shape[-1]
    height, width = images.shape[1:3] if size is None else size
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    places = (padded.shape[1] - height + 1, padded.shape[2] - width + 1)
    corners = jax.random.randint(key, (batch, 2), 0, jnp.asarray(places))

    def crop(image: jax.Array, corner: jax.Array) -> jax.Array:
        start = (corner[0], corner[1], 0)
        return jax.lax.dynamic_slice(image, start, (height, width, channels))

    return jax.vmap(crop)(padded, corners)


def random_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirror each image of [B, H, W, C] left-right with probability 1/2."""
    flip = jax.random.bernoulli(key, 0.5, (images.shape[0],))
    return jnp.where(flip[:, None, None, None], images[:, :, ::-1], images)


def crop_flip(
    key: jax.Array, images: jax.Array, config: Augment, size: tuple[int, int] | None = None
) -> jax.Array:
    """The part of :func:`augment` that moves pixels and leaves their values alone.

    A per-pixel mean goes the same way as the images it is subtracted from, by the same key: what
    the padding shows is then zero after the subtraction, which is that of the mean before the crop.

    Args:
      key: random key of this batch.
      images: [B, H, W, C], any dtype.
      config: what to apply.
      size: (h, w) of the crop, by default (H, W).

    Returns:
      [B, h, w, C] of the same dtype.
    """
    crop_key, flip_key = (jax.random.fold_in(key, i) for i in range(2))
    if config.crop_padding or size not in (None, images.shape[1:3]):
        images = pad_crop(crop_key, images, config.crop_padding, size)
    return random_flip(flip_key, images) if config.flip else images


def augment(
    key: jax.Array,
    images: jax.Array,
    config: Augment,
    mean: Sequence[float],
    size: tuple[int, int] | None = None,
) -> jax.Array:
    """Apply the configured augmentations to a batch.

    Args:
      key: random key of this batch.
      images: uint8 [B, H, W, C].
      config: what to apply.
      mean: the dataset's mean colour in 0..1, which fills what a warp uncovers.
      size: (h, w) of the crop, by default (H, W).

    Returns:
      uint8 [B, h, w, C].
    """
    rand_key = jax.random.fold_in(key, 2)

    def rand(images: jax.Array) -> jax.Array:
        if not config.randaugment_layers:
            return images
        layers, magnitude = config.randaugment_layers, config.randaugment_magnitude
        return rand_augment(rand_key, images, layers, magnitude, mean)

    if config.order == "crop_first":
        return rand(crop_flip(key, images, config, size))
    return crop_flip(key, rand(images), config, size)

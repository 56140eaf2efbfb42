"""The parts that residual image classifiers share: stem, projection shortcut, head."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from branchnets.nn.conv import Conv
from branchnets.nn.norm import BatchNorm

STEMS = ("cifar", "cifar_pool", "imagenet")


def check_images(images: jax.Array) -> None:
    """Refuses what is no batch of normalised images [B, H, W, C] of a floating type."""
    if images.ndim != 4 or not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f"a network takes normalised images, [B, H, W, C] of a floating type; got shape "
            f"{images.shape} of {images.dtype}"
        )


class Stem(nn.Module):
    """Stage c1: the convolution before the first block.

    ``"cifar"`` is a 3x3 convolution of stride 1; ``"imagenet"`` is a 7x7 convolution of stride 2
    followed by a 3x3 max pooling of stride 2 (He et al. 2016, Table 1); ``"cifar_pool"`` is the
    first followed by that pooling (MaskConnect, Table 6).  All are padded symmetrically as in
    PyTorch, with batch norm and ReLU after the convolution.

    Input [B, H, W, C_image], output [B, H', W', channels] in ``dtype``.
    """

    kind: str
    channels: int
    bn_group_size: int | None = None
    bn_momentum: float = 0.9
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> jax.Array:
        if self.kind not in STEMS:
            raise ValueError(f"unknown stem {self.kind!r}; choose one of {', '.join(STEMS)}")
        kernel, stride = (3, 1) if self.kind.startswith("cifar") else (7, 2)
        x = Conv(self.channels, kernel, stride, dtype=self.dtype, name="conv")(x)
        x = BatchNorm(self.bn_group_size, self.bn_momentum, relu=True, dtype=self.dtype, name="bn")(
            x, train=train, mask=mask
        )
        if self.kind != "cifar":
            x = nn.max_pool(x, window_shape=(3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        return x


class Shortcut(nn.Module):
    """The way around a block: identity, or a 1x1 convolution and batch norm where shapes change.

    Input [B, H, W, C_in], output [B, H/stride, W/stride, channels].
    """

    channels: int
    stride: int = 1
    bn_group_size: int | None = None
    bn_momentum: float = 0.9
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> jax.Array:
        if self.stride == 1 and x.shape[-1] == self.channels:
            return x
        x = Conv(self.channels, 1, self.stride, dtype=self.dtype, name="conv")(x)
        return BatchNorm(self.bn_group_size, self.bn_momentum, dtype=self.dtype, name="bn")(
            x, train=train, mask=mask
        )


class Head(nn.Module):
    """Global average pooling and the final linear layer, both in float32.

    Input [B, H, W, C], output logits [B, num_classes] in float32.
    """

    num_classes: int
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        return nn.Dense(
            self.num_classes,
            use_bias=self.use_bias,
            kernel_init=_uniform_fan_in,
            bias_init=nn.initializers.zeros,
            name="linear",
        )(x)


def _uniform_fan_in(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)), the default of the linear layer the papers trained."""
    bound = shape[0] ** -0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)

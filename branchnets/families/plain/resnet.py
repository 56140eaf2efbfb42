"""ResNet and ResNeXt with bottleneck blocks: the baselines that every family is compared with.

He et al. 2016 (ResNet, with the stride on the 3x3 convolution as in torchvision) and Xie et al.
2017 (ResNeXt, the form of its Fig. 3c: one grouped convolution between two ordinary 1x1s).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from branchnets.nn.conv import Conv
from branchnets.nn.norm import BatchNorm
from branchnets.nn.resnet_parts import Head, Shortcut, Stem, check_images


@dataclasses.dataclass(frozen=True)
class BlockSpec:
    """The numbers of one bottleneck block, ``[channels, width, branches]`` of the papers' tables.

    Attributes:
      channels: C, output channels.
      branches: N, cardinality; 1 is an ordinary ResNet block.
      width: D, bottleneck channels of one branch.
      stride: stride of the 3x3 convolution and of the shortcut.
    """

    channels: int
    branches: int
    width: int
    stride: int = 1


@flax.struct.dataclass
class Output:
    """What a plain network returns: ``logits`` [B, K], float32."""

    logits: jax.Array


class Bottleneck(nn.Module):
    """y = ReLU(shortcut(x) + BN(sum_n T_n(x)))   (Coded ResNeXt, Eq. 1 with Fig. 1a's norms).

    T_n is 1x1 conv, BN, ReLU, 3x3 conv (stride), BN, ReLU, 1x1 conv; the sum over branches is one
    1x1 convolution over all N*D channels.  The last batch norm starts with scale 0, so that a new
    block is the identity.

    Input [B, H, W, C_in], output [B, H/stride, W/stride, C] in ``dtype``.
    """

    spec: BlockSpec
    bn_group_size: int | None = None
    bn_momentum: float = 0.9
    dtype: Any = jnp.float32

    def norm(self, name: str, **kwargs: Any) -> BatchNorm:
        return BatchNorm(
            self.bn_group_size, self.bn_momentum, dtype=self.dtype, name=name, **kwargs
        )

    def hidden(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
        """The branches up to their second ReLU: [B, H/stride, W/stride, N*D]."""
        inner = self.spec.branches * self.spec.width
        x = Conv(inner, 1, dtype=self.dtype, name="reduce")(x)
        x = self.norm("reduce_bn", relu=True)(x, train=train, mask=mask)
        x = Conv(
            inner,
            3,
            self.spec.stride,
            groups=self.spec.branches,
            dtype=self.dtype,
            name="branch_conv",
        )(x)
        return self.norm("branch_bn", relu=True)(x, train=train, mask=mask)

    def close(
        self, x: jax.Array, aggregated: jax.Array, train: bool, mask: jax.Array | None
    ) -> jax.Array:
        """Batch norm after the sum over branches, shortcut and last ReLU."""
        residual = self.norm("expand_bn", scale_init=nn.initializers.zeros)(
            aggregated, train=train, mask=mask
        )
        shortcut = Shortcut(
            self.spec.channels,
            self.spec.stride,
            self.bn_group_size,
            self.bn_momentum,
            self.dtype,
            name="shortcut",
        )(x, train=train, mask=mask)
        return nn.relu(shortcut + residual)

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> jax.Array:
        hidden = self.hidden(x, train, mask)
        aggregated = Conv(self.spec.channels, 1, dtype=self.dtype, name="expand")(hidden)
        return self.close(x, aggregated, train, mask)


class Stage(nn.Module):
    """A run of blocks of one feature-map size, named ``block0``, ``block1``, ..."""

    blocks: tuple[BlockSpec, ...]
    bn_group_size: int | None = None
    bn_momentum: float = 0.9
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> jax.Array:
        for i, spec in enumerate(self.blocks):
            x = Bottleneck(
                spec, self.bn_group_size, self.bn_momentum, self.dtype, name=f"block{i}"
            )(x, train=train, mask=mask)
        return x


class ResNet(nn.Module):
    """A ResNet or ResNeXt: stem, stages ``stage2``, ``stage3``, ... (c2, c3, ...), head.

    ``model.apply(variables, images, train=...)`` returns :class:`Output`.

    Attributes:
      stages: one tuple of :class:`BlockSpec` a stage.
      num_classes: K.
      stem: ``"cifar"`` or ``"imagenet"``.
      stem_channels: channels of the stem.
      head_bias: whether the final linear layer has a bias.
      bn_group_size: examples that share batch-norm statistics; None is the whole batch.
      bn_momentum: decay of the running statistics (0.9 is PyTorch's 0.1).
      dtype: compute type; parameters, statistics and logits stay float32.

    Args of the call:
      images: [B, H, W, C_image], normalised.
      mask: [B], 0 for padding that batch statistics must not see.
    """

    stages: tuple[tuple[BlockSpec, ...], ...]
    num_classes: int
    stem: str = "cifar"
    stem_channels: int = 64
    head_bias: bool = True
    bn_group_size: int | None = None
    bn_momentum: float = 0.9
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> Output:
        common = (self.bn_group_size, self.bn_momentum, self.dtype)
        check_images(images)
        x = images.astype(self.dtype)
        x = Stem(self.stem, self.stem_channels, *common, name="stem")(x, train=train, mask=mask)
        for i, blocks in enumerate(self.stages):
            x = Stage(blocks, *common, name=f"stage{i + 2}")(x, train=train, mask=mask)
        return Output(logits=Head(self.num_classes, self.head_bias, name="head")(x))


def bottleneck_stages(
    depths: tuple[int, ...], branches: int, width: int, channels: int = 256
) -> tuple[tuple[BlockSpec, ...], ...]:
    """Stages whose channels and widths double while the feature map halves.

    Args:
      depths: blocks of each stage.
      branches: N of every block.
      width: D of the first stage.
      channels: C of the first stage.
    """
    return tuple(
        tuple(
            BlockSpec(channels * 2**s, branches, width * 2**s, 2 if s and not i else 1)
            for i in range(depth)
        )
        for s, depth in enumerate(depths)
    )

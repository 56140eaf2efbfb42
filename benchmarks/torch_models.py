"""The yardstick's networks: ResNeXt and Coded ResNeXt in plain PyTorch.

Written from the papers' equations for this comparison. The coded block builds the tensor of all
branch outputs, N x C x H x W for each example, as the equations are written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Shape:
    """One network; `active` has N_act of every stage's blocks, N meaning an ordinary block."""

    depths: tuple[int, ...]
    branches: int
    width: int
    active: tuple[int, ...]
    imagenet: bool
    num_classes: int
    size: int
    head_bias: bool
    mu: float = 0.0
    drop_rate: float = 0.1


def _pair(plain: str, coded: str, active: tuple[int, ...], **fields: Any) -> dict[str, Shape]:
    whole = (fields["branches"],) * len(active)
    return {
        plain: Shape(active=whole, head_bias=fields["imagenet"], **fields),
        coded: Shape(
            active=active, head_bias=False, mu=1.0 if fields["imagenet"] else 6.0, **fields
        ),
    }


# Table 1 of the Coded ResNeXt paper, under the names of the registry.
SHAPES = {
    **_pair(
        "resnext29_10x11d",
        "coded_resnext29_10x11d_cifar10",
        (10, 5, 3),
        depths=(3, 3, 3),
        branches=10,
        width=11,
        imagenet=False,
        num_classes=10,
        size=32,
    ),
    **_pair(
        "resnext29_20x6d",
        "coded_resnext29_20x6d_cifar100",
        (20, 8, 4),
        depths=(3, 3, 3),
        branches=20,
        width=6,
        imagenet=False,
        num_classes=100,
        size=32,
    ),
    **_pair(
        "resnext50_32x4d",
        "coded_resnext50_32x4d_imagenet",
        (32, 32, 16, 8),
        depths=(3, 4, 6, 3),
        branches=32,
        width=4,
        imagenet=True,
        num_classes=1000,
        size=160,
    ),
}


def codewords(num_classes: int, branches: int, active: int) -> Tensor:
    """[K, N] of zeros and ones, `active` ones a row; which ones does not matter to the time."""
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(num_classes, branches, generator=generator).argsort(dim=1)
    return (order < active).float()


class Block(nn.Module):
    """An ordinary bottleneck block with grouped convolution, up to its sum over branches."""

    def __init__(self, inputs: int, channels: int, branches: int, width: int, stride: int):
        super().__init__()
        inner = branches * width
        self.reduce = nn.Conv2d(inputs, inner, 1, bias=False)
        self.reduce_bn = nn.BatchNorm2d(inner)
        self.branch = nn.Conv2d(inner, inner, 3, stride, 1, groups=branches, bias=False)
        self.branch_bn = nn.BatchNorm2d(inner)
        self.expand = self.expansion(inner, channels, branches)
        self.expand_bn = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.expand_bn.weight)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def expansion(self, inner: int, channels: int, branches: int) -> nn.Conv2d:
        # The sum over branches of 1x1 convolutions is one 1x1 convolution.
        return nn.Conv2d(inner, channels, 1, bias=False)

    def hidden(self, x: Tensor) -> Tensor:
        x = functional.relu(self.reduce_bn(self.reduce(x)), inplace=True)
        return functional.relu(self.branch_bn(self.branch(x)), inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand_bn(self.expand(self.hidden(x)))
        return functional.relu(y + self.shortcut(x), inplace=True)


class CodedBlock(Block):
    """A coded block: Eqs. 2, 3 and 5, and dropSubNN, on the branches' outputs."""

    def __init__(
        self, inputs: int, channels: int, branches: int, width: int, stride: int, codes: Tensor
    ):
        super().__init__(inputs, channels, branches, width, stride)
        self.branches = branches
        self.ratio = float(codes[0].sum()) / branches
        self.register_buffer("codes", codes, persistent=False)

    def expansion(self, inner: int, channels: int, branches: int) -> nn.Conv2d:
        return nn.Conv2d(inner, branches * channels, 1, groups=branches, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """y in evaluation: Eqs. 2 and 3 alone."""
        t = self.expand(self.hidden(x)).unflatten(1, (self.branches, -1))
        total = t.square().mean(dim=(1, 2, 3, 4), keepdim=True)
        return self.close(t / total.sqrt(), x)

    def close(self, t: Tensor, x: Tensor) -> Tensor:
        """y from the branches' outputs [B, N, C, H, W]."""
        # The sum leaves channels_last, which the layers after it are faster in.
        y = self.expand_bn(t.sum(dim=1).contiguous(memory_format=torch.channels_last))
        return functional.relu(y + self.shortcut(x), inplace=True)

    def coded(self, x: Tensor, labels: Tensor, drop: Tensor) -> tuple[Tensor, Tensor]:
        """(y, this block's coding loss); `drop` [B, N] has dropSubNN's factors."""
        t = self.expand(self.hidden(x)).unflatten(1, (self.branches, -1))  # [B, N, C, H, W]
        energy = t.square().mean(dim=(2, 3, 4))  # Eq. 2
        total = energy.mean(dim=1, keepdim=True)
        t = t / total.sqrt()[:, :, None, None, None]  # Eq. 3
        energy = energy / total  # of the normalised t, since E(a t) = a^2 E(t)
        loss = (self.ratio * energy - self.codes[labels]).pow(4).mean()  # Eq. 5
        return self.close(t * drop[:, :, None, None, None], x), loss


class Network(nn.Module):
    """Stem, stages and head; `forward` returns logits and the sum of the coding losses."""

    def __init__(self, shape: Shape, num_classes: int):
        super().__init__()
        self.drop_rate = shape.drop_rate
        kernel, stride = (7, 2) if shape.imagenet else (3, 1)
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1) if shape.imagenet else nn.Identity(),
        )
        blocks: list[Block] = []
        inputs = 64
        for stage, (depth, active) in enumerate(zip(shape.depths, shape.active, strict=True)):
            channels, width = 256 * 2**stage, shape.width * 2**stage
            codes = codewords(num_classes, shape.branches, active)
            for block in range(depth):
                step = 2 if stage and not block else 1
                numbers = (inputs, channels, shape.branches, width, step)
                if active < shape.branches:
                    blocks.append(CodedBlock(*numbers, codes))
                else:
                    blocks.append(Block(*numbers))
                inputs = channels
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Linear(inputs, num_classes, bias=shape.head_bias)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def logits(self, images: Tensor) -> Tensor:
        """[B, K] in evaluation."""
        x = self.stem(images)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(dim=(2, 3)))

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(images)
        coding = torch.zeros((), device=x.device)
        ratio, drop = None, torch.ones((), device=x.device)
        for block in self.blocks:
            if isinstance(block, CodedBlock):
                if block.ratio != ratio:  # one draw for a run of blocks of one coding scheme
                    ratio, keep = block.ratio, 1 - self.drop_rate
                    drop = torch.rand(len(images), block.branches, device=x.device).lt(keep)
                    drop = drop.float() / keep
                x, loss = block.coded(x, labels, drop)
                coding = coding + loss
            else:
                x = block(x)
        return self.head(x.mean(dim=(2, 3))), coding

"""The registered plain networks: torchvision's shapes, and Table 1's ResNeXt-29s at ratio N/N."""

from __future__ import annotations

import functools
from typing import Any

from branchnets.families.plain.resnet import ResNet, bottleneck_stages
from branchnets.registry import Entry, register


def _resnet(
    *,
    depths: tuple[int, ...],
    branches: int,
    width: int,
    channels: int = 256,
    num_classes: int,
    **fields: Any,
) -> ResNet:
    """A ResNet of regular shape: ``bottleneck_stages`` unless ``stages=`` is given."""
    fields.setdefault("stages", bottleneck_stages(depths, branches, width, channels))
    return ResNet(num_classes=num_classes, **fields)


def _register(
    name: str, image_shape: tuple[int, int, int], num_classes: int, **fields: Any
) -> None:
    build = functools.partial(_resnet, **fields)
    register(name, Entry(build, "plain", image_shape, num_classes))


_IMAGENET: dict[str, Any] = {"image_shape": (224, 224, 3), "num_classes": 1000, "stem": "imagenet"}
_CIFAR: dict[str, Any] = {"image_shape": (32, 32, 3), "head_bias": False, "depths": (3, 3, 3)}

_register("resnet50", depths=(3, 4, 6, 3), branches=1, width=64, **_IMAGENET)
_register("resnet101", depths=(3, 4, 23, 3), branches=1, width=64, **_IMAGENET)
_register("resnext50_32x4d", depths=(3, 4, 6, 3), branches=32, width=4, **_IMAGENET)
_register("resnext101_32x4d", depths=(3, 4, 23, 3), branches=32, width=4, **_IMAGENET)
_register("resnext101_64x4d", depths=(3, 4, 23, 3), branches=64, width=4, **_IMAGENET)
_register("resnext29_10x11d", branches=10, width=11, num_classes=10, **_CIFAR)
_register("resnext29_20x6d", branches=20, width=6, num_classes=100, **_CIFAR)
_register(
    "resnext_digits",
    image_shape=(16, 16, 1),
    num_classes=10,
    depths=(1, 2, 2),
    branches=10,
    width=3,
    channels=64,
    stem_channels=32,
    head_bias=False,
)
_register(
    "resnext11_10x4d_cifar10",
    image_shape=(32, 32, 3),
    num_classes=10,
    depths=(1, 1, 1),
    branches=10,
    width=4,
    channels=64,
    stem_channels=32,
    head_bias=False,
)

"""The registered networks of MaskConnect: its Tables 5 and 6, ImageNet's, and a small one."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn

from branchnets.errors import ConfigError, unknown
from branchnets.families.maskconnect.model import AGGREGATES, MaskConnectNet, ModuleSpec
from branchnets.families.plain.resnet import ResNet, bottleneck_stages
from branchnets.registry import Entry, register

#: How branches come by their connections: masks learned with the weights; the same with
#: real-valued masks in the forward pass, which the paper rejects; K fixed random inputs; all
#: inputs, as the equation has it; and the true ResNeXt, with one stream and one batch norm after
#: the sum ("Fixed-Full").
CONNECTIVITIES = ("learned", "real", "random", "ones", "full")
_MASK_INIT = {"learned": "uniform", "real": "uniform", "random": "random", "ones": "ones"}


@dataclasses.dataclass(frozen=True)
class Builder:
    """Builds one network {D, w, C} of the paper.

    Attributes:
      depths: modules of each stage; D = 2 + 3 times their sum.
      branches: C of the paper, the branches of every module.
      width: w, the bottleneck channels of one branch in the first stage.
      channels: of one stream in the first stage.
      fan_in: K.
      stem: of the network.
      stem_channels: of the network.
    """

    depths: tuple[int, ...]
    branches: int
    width: int
    channels: int
    fan_in: int = 4
    stem: str = "cifar"
    stem_channels: int = 16

    @property
    def architecture(self) -> str:
        """``{29,8,8}``: depth, width, cardinality."""
        return f"{{{2 + 3 * sum(self.depths)},{self.width},{self.branches}}}"

    def __call__(
        self, *, num_classes: int, connectivity: str = "learned", **overrides: Any
    ) -> nn.Module:
        """The network.

        Args:
          num_classes: of the data.
          connectivity: one of :data:`CONNECTIVITIES`; ``"full"`` gives a
            :class:`branchnets.families.plain.resnet.ResNet`.
          **overrides: any attribute of this builder, or fields of the module.

        Raises:
          ValueError: an unknown connectivity or aggregate, or a fan-in that is not 1 to C.
        """
        if connectivity not in CONNECTIVITIES:
            raise unknown("connectivity", connectivity, CONNECTIVITIES)
        own = {field.name for field in dataclasses.fields(self)}
        sized = dataclasses.replace(self, **{k: overrides.pop(k) for k in own & set(overrides)})
        return sized.build(num_classes, connectivity, overrides)

    def build(self, num_classes: int, connectivity: str, fields: dict[str, Any]) -> nn.Module:
        """The network of these sizes; ``fields`` are the module's own."""
        if not isinstance(self.fan_in, int) or not 1 <= self.fan_in <= self.branches:
            raise ConfigError(
                f"fan_in is {self.fan_in!r}; a branch can read 1 to {self.branches} others"
            )
        if "mask_init" in fields:
            raise ConfigError("mask_init follows from connectivity: 'random', 'ones', 'learned'")
        if fields.get("aggregate", "sum") not in AGGREGATES:
            raise unknown("aggregate", fields["aggregate"], AGGREGATES)
        blocks = bottleneck_stages(self.depths, self.branches, self.width, self.channels)
        common = {"stem": self.stem, "stem_channels": self.stem_channels, **fields}
        if connectivity == "full":
            common.pop("aggregate", None)  # a ResNeXt has one stream
            return ResNet(stages=blocks, num_classes=num_classes, **common)
        stages = tuple(
            tuple(ModuleSpec(**dataclasses.asdict(block)) for block in stage) for stage in blocks
        )
        return MaskConnectNet(
            num_classes=num_classes,
            fan_in=self.branches if connectivity == "ones" else self.fan_in,
            mask_init=_MASK_INIT[connectivity],
            **{"stages": stages, **common},
        )


#: Name -> builder.
BUILDERS: dict[str, Builder] = {}


def _register(
    name: str, image_shape: tuple[int, int, int], num_classes: int, builder: Builder
) -> None:
    BUILDERS[name] = builder
    register(name, Entry(builder, "maskconnect", image_shape, num_classes))


_CIFAR, _MINI, _IMAGENET = (32, 32, 3), (64, 64, 3), (224, 224, 3)
_register("maskconnect20_w4_c8", _CIFAR, 100, Builder((2, 2, 2), 8, 4, 64))
_register("maskconnect29_w4_c8", _CIFAR, 100, Builder((3, 3, 3), 8, 4, 64))
_register("maskconnect29_w8_c8", _CIFAR, 100, Builder((3, 3, 3), 8, 8, 64))
_register("maskconnect29_w64_c8", _CIFAR, 100, Builder((3, 3, 3), 8, 64, 256, stem_channels=64))
_register(
    "maskconnect20_w4_c8_miniimagenet",
    _MINI,
    100,
    Builder((2, 2, 2), 8, 4, 64, stem="cifar_pool"),
)
_register(
    "maskconnect29_w8_c8_miniimagenet",
    _MINI,
    100,
    Builder((3, 3, 3), 8, 8, 64, stem="cifar_pool"),
)
for _name, _depths, _branches in (
    ("maskconnect50_w4_c32", (3, 4, 6, 3), 32),
    ("maskconnect101_w4_c32", (3, 4, 23, 3), 32),
    ("maskconnect101_w4_c64", (3, 4, 23, 3), 64),
):
    _register(
        _name,
        _IMAGENET,
        1000,
        Builder(_depths, _branches, 4, 256, _branches // 2, "imagenet", 64),
    )
_register("maskconnect_digits", (8, 8, 1), 10, Builder((2, 2, 2), 8, 2, 16, stem_channels=16))

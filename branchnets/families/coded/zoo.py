"""The registered coded networks: Table 1 of the paper, and small ones."""

from __future__ import annotations

import dataclasses
from typing import Any

from branchnets.errors import ConfigError
from branchnets.families.coded.model import CodedBlockSpec, CodedResNeXt
from branchnets.families.plain.resnet import bottleneck_stages
from branchnets.registry import Entry, register

Active = tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class Builder:
    """Builds one network of Table 1, with its ratios or others.

    Attributes:
      depths: blocks of each stage.
      branches: N.
      width: D of the first stage; it doubles from stage to stage.
      active: N_act of every block, one tuple a stage; N is an ordinary block.
      channels: C of the first stage.
      fields: other fields of the module.
    """

    depths: tuple[int, ...]
    branches: int
    width: int
    active: Active
    channels: int = 256
    fields: tuple[tuple[str, Any], ...] = ()

    def __call__(
        self, *, num_classes: int, active: Active | None = None, **overrides: Any
    ) -> CodedResNeXt:
        """The network.

        Args:
          num_classes: K.
          active: N_act of every block, one tuple a stage, instead of the paper's.
          **overrides: fields of :class:`CodedResNeXt`.
        """
        if "stages" not in overrides:
            overrides["stages"] = self.stages(active or self.active)
        return CodedResNeXt(num_classes=num_classes, **{**dict(self.fields), **overrides})

    def stages(self, active: Active) -> tuple[tuple[CodedBlockSpec, ...], ...]:
        """Block specs; a run of equal ``active`` shares a drop mask (3.1.3)."""
        depths = tuple(map(len, active))
        if len(depths) != len(self.depths):
            raise ConfigError(f"active has {len(depths)} stages, the network {len(self.depths)}")
        if not all(1 <= a <= self.branches for stage in active for a in stage):
            raise ConfigError(f"active must be 1 to {self.branches} in every block, not {active}")
        run, previous, stages = 0, None, []
        plain = bottleneck_stages(depths, self.branches, self.width, self.channels)
        for blocks, ratios in zip(plain, active, strict=True):
            stage = []
            for block, kept in zip(blocks, ratios, strict=True):
                run += previous is not None and kept != previous
                previous = kept
                norm = self.branches if kept < self.branches else None
                stage.append(
                    CodedBlockSpec(**dataclasses.asdict(block), norm_branches=norm, drop_run=run)
                )
            stages.append(tuple(stage))
        return tuple(stages)


BUILDERS: dict[str, Builder] = {
    "coded_resnext29_10x11d_cifar10": Builder((3, 3, 3), 10, 11, ((10,) * 3, (5,) * 3, (3,) * 3)),
    "coded_resnext29_20x6d_cifar100": Builder((3, 3, 3), 20, 6, ((20,) * 3, (8,) * 3, (4,) * 3)),
    "coded_resnext50_32x4d_imagenet": Builder(
        (3, 4, 6, 3),
        32,
        4,
        ((32,) * 3, (32,) * 4, (16,) * 6, (8,) * 3),
        fields=(("stem", "imagenet"),),
    ),
    "coded_resnext_digits": Builder(
        (1, 2, 2),
        10,
        3,
        ((10,), (5,) * 2, (3,) * 2),
        channels=64,
        fields=(("stem_channels", 32),),
    ),
    "coded_resnext11_10x4d_cifar10": Builder(
        (1, 1, 1),
        10,
        4,
        ((10,), (5,), (3,)),
        channels=64,
        fields=(("stem_channels", 32),),
    ),
}

_USUAL_INPUT = {
    "coded_resnext29_10x11d_cifar10": ((32, 32, 3), 10),
    "coded_resnext29_20x6d_cifar100": ((32, 32, 3), 100),
    "coded_resnext50_32x4d_imagenet": ((160, 160, 3), 1000),
    "coded_resnext_digits": ((16, 16, 1), 10),
    "coded_resnext11_10x4d_cifar10": ((32, 32, 3), 10),
}

for _name, _builder in BUILDERS.items():
    register(_name, Entry(_builder, "coded", *_USUAL_INPUT[_name]))

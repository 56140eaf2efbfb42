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
      branches: N.
      width: D of the first stage; it doubles from stage to stage.
      active: N_act of every block, one tuple a stage; N is an ordinary block.
      channels: C of the first stage.
      fields: other fields of the module.
    """

    branches: int
    width: int
    active: Active
    channels: int = 256
    fields: tuple[tuple[str, Any], ...] = ()

    def __call__(
        self,
        *,
        num_classes: int,
        active: Active | None = None,
        branches: int | None = None,
        width: int | None = None,
        channels: int | None = None,
        **overrides: Any,
    ) -> CodedResNeXt:
        """The network.

        Args:
          num_classes: K.
          active: N_act of every block, one tuple a stage, instead of the paper's.
          branches, width, channels: N, D and C of the first stage, instead of this network's.
          **overrides: fields of :class:`CodedResNeXt`.
        """
        sized = dataclasses.replace(
            self,
            branches=branches or self.branches,
            width=width or self.width,
            channels=channels or self.channels,
        )
        if "stages" not in overrides:
            overrides["stages"] = sized.stages(active or self.active)
        return CodedResNeXt(num_classes=num_classes, **{**dict(self.fields), **overrides})

    def stages(self, active: Active) -> tuple[tuple[CodedBlockSpec, ...], ...]:
        """Block specs; a run of equal ``active`` shares a drop mask (3.1.3)."""
        depths = tuple(map(len, active))
        if len(active) != len(self.active):
            raise ConfigError(f"active has {len(active)} stages, the network {len(self.active)}")
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


#: Name -> builder: the family reads from it how many branches are active when a config is silent.
BUILDERS: dict[str, Builder] = {}


def _register(
    name: str, image_shape: tuple[int, int, int], num_classes: int, builder: Builder
) -> None:
    BUILDERS[name] = builder
    register(name, Entry(builder, "coded", image_shape, num_classes))


_register(
    "coded_resnext29_10x11d_cifar10",
    (32, 32, 3),
    10,
    Builder(10, 11, ((10,) * 3, (5,) * 3, (3,) * 3)),
)
_register(
    "coded_resnext29_20x6d_cifar100",
    (32, 32, 3),
    100,
    Builder(20, 6, ((20,) * 3, (8,) * 3, (4,) * 3)),
)
_register(
    "coded_resnext50_32x4d_imagenet",
    (160, 160, 3),
    1000,
    Builder(32, 4, ((32,) * 3, (32,) * 4, (16,) * 6, (8,) * 3), fields=(("stem", "imagenet"),)),
)
_SMALL: dict[str, Any] = {"channels": 64, "fields": (("stem_channels", 32),)}
_register(
    "coded_resnext_digits",
    (16, 16, 1),
    10,
    Builder(10, 3, ((10,), (5,) * 2, (3,) * 2), **_SMALL),
)
_register(
    "coded_resnext11_10x4d_cifar10",
    (32, 32, 3),
    10,
    Builder(10, 4, ((10,), (5,), (3,)), **_SMALL),
)

"""What each family takes out of a network, for benchmarks: no data and no training needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

from branchnets.counting import describe
from branchnets.errors import ConfigError
from branchnets.families.base import Family
from branchnets.families.coded import slim
from branchnets.families.coded.family import CodedFamily
from branchnets.families.maskconnect.family import MaskConnectFamily
from branchnets.families.maskconnect.model import MaskConnectNet
from branchnets.families.maskconnect.prune import prune_network


@dataclasses.dataclass(frozen=True)
class Small:
    """A network that was taken out of another.

    Attributes:
      model: its module.
      variables: its weights.
      what: what was taken out, for the table.
    """

    model: nn.Module
    variables: Any
    what: str


def take_out(family: Family, variables: Mapping[str, Any], k: int) -> Small:
    """The smaller network of a family; ``k`` is a class, for families that have one per class.

    Raises:
      ValueError: a family or a network with nothing to take out, or no such class.
    """
    for kind, take in _TAKE.items():
        if isinstance(family, kind):
            return take(family, variables, k)
    raise ConfigError(
        f"there is nothing to take out of a network of family {family.name!r}; "
        f"choose one of {', '.join(sorted(kind.name for kind in _TAKE))}"
    )


def layer_macs(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Multiply-adds in convolutions and the linear layer alone: no energies, no mixing."""
    if isinstance(model, slim.CodedResNeXt):
        return slim.layer_macs(model, image_shape)
    mixed = model.modules() if isinstance(model, MaskConnectNet) else ()
    rows = describe(model, image_shape, depth=3).stages
    # What a module multiplies outside its layers is the mixing of its inputs.
    return sum(row.macs for row in rows if row.name not in mixed)


def _classifier(family: Any, variables: Mapping[str, Any], k: int) -> Small:
    """The branches of one class."""
    model = family.model
    if not 0 <= k < model.num_classes:
        raise ConfigError(f"--class is 0 to {model.num_classes - 1}, not {k}")
    keep = slim.keep_of(family.schemes, [k])
    small = slim.slim_variables(model, variables, keep, [k])
    return Small(slim.slim_model(model, keep, [k]), small, f"class {k}")


def _pruned(family: Any, variables: Mapping[str, Any], k: int) -> Small:
    """The branches that anyone reads."""
    if not family.has_masks:
        raise ConfigError("connectivity 'full' is a ResNeXt, whose branches are all read")
    model, weights, kept = prune_network(family.model, variables)
    counts = " ".join(str(len(indices)) for indices in kept.values())
    return Small(model, weights, f"branches {counts}")


_TAKE: dict[type[Family], Callable[[Any, Mapping[str, Any], int], Small]] = {
    CodedFamily: _classifier,
    MaskConnectFamily: _pruned,
}

"""What a family takes out of a network, for benchmarks: no data and no training needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from branchnets.families.base import Family


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
      ValueError, UserError: a family or a network with nothing to take out, or no such class.
    """
    per_class = any(option.name == "classes" for option in family.slim_options)
    return Small(*family.take_out(variables, **({"classes": (k,)} if per_class else {})))

"""How many branches of each module reach the output, and what taking out the others saves."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from branchnets import counting
from branchnets.families.maskconnect.analysis.wiring import Wiring
from branchnets.families.maskconnect.prune import prune_model

if TYPE_CHECKING:
    from branchnets.families.maskconnect.model import MaskConnectNet


@dataclasses.dataclass(frozen=True)
class Part:
    """A module, or the stem or the head.

    Attributes:
      name: of it.
      branches, active: all, and those that reach the output; None for stem and head.
      parameters, macs: before and after pruning.
    """

    name: str
    branches: int | None
    active: int | None
    parameters: tuple[int, int]
    macs: tuple[int, int]


def parts(
    model: MaskConnectNet, found: Wiring, image_shape: tuple[int, int, int]
) -> tuple[Part, ...]:
    """Every part of a network before and after pruning, in order."""
    small = model if found.state == "real" else prune_model(model, found.weights, found.kept)
    before = counting.describe(model, image_shape, depth=2).stages
    after = {row.name: row for row in counting.describe(small, image_shape, depth=2).stages}
    return tuple(
        Part(
            row.name,
            found.modules[row.name].branches if row.name in found.modules else None,
            len(found.kept[row.name]) if row.name in found.kept else None,
            (row.parameters, after[row.name].parameters),
            (row.macs, after[row.name].macs),
        )
        for row in before
    )


def chance(branches: Mapping[str, int], fan_in: int, draws: int, seed: int) -> np.ndarray:
    """Branches that reach the output where every branch reads K random others.

    Args:
      branches: module name -> N, from input to output.
      fan_in: K.
      draws: networks to draw.
      seed: of the draws.

    Returns:
      int [draws, modules].
    """
    random = np.random.default_rng(seed)
    counts = list(branches.values())
    alive: np.ndarray = np.ones((draws, counts[-1]), bool)
    active = [alive.sum(1)]
    for before in counts[-2::-1]:
        score = random.random((draws, alive.shape[1], before))
        largest = np.argpartition(-score, fan_in - 1, axis=-1)[..., :fan_in]
        read = np.zeros(score.shape, bool)
        np.put_along_axis(read, largest, True, axis=-1)
        alive = np.asarray((read & alive[:, :, None]).any(1))
        active.append(alive.sum(1))
    return np.stack(active[::-1], axis=1)

"""What thresholds for all classes cost: passes and multiply-adds, counted from the network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from branchnets.counting import describe
from branchnets.families.coded import slim
from branchnets.families.coded.model import CodedResNeXt


@dataclasses.dataclass(frozen=True)
class Shares:
    """Multiply-adds of one image, in parts.

    Attributes:
      full: of the whole network.
      prefix: of what comes before the first coded block.
      small: of one binary classifier, prefix included.
    """

    full: int
    prefix: int
    small: int


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to get the training scores of all classifiers.

    Attributes:
      name: in words.
      passes: through a binary classifier.
      macs: in all.
    """

    name: str
    passes: int
    macs: int


def shares(model: CodedResNeXt, active: Mapping[str, int], image_shape: tuple[int, ...]) -> Shares:
    """Counts the parts of a network and of its binary classifiers.

    Args:
      model: the network.
      active: coded block -> N_act.
      image_shape: (H, W, C).
    """
    before = list(model.blocks())[: list(model.blocks()).index(next(iter(active)))]
    whole = describe(model, image_shape, depth=2)
    prefix = sum(r.macs for r in whole.stages if r.name in before or r.name.startswith("stem"))
    if model.aggregate != "sum":  # branches are silenced, not taken out
        return Shares(whole.macs, prefix, whole.macs)
    small = slim.slim_model(model, {b: range(n) for b, n in active.items()}, [0])
    return Shares(whole.macs, prefix, describe(small, image_shape).macs)


def ways(parts: Shares, classes: int, images: int, negatives: int) -> tuple[Way, ...]:
    """The ways to score training images, dearest first.

    Args:
      parts: of the network.
      classes: K.
      images: n in the training split.
      negatives: drawn for each positive, where there are more.
    """
    everything, pairs = classes * images, (1 + negatives) * images
    whole = (
        Way("every image through every classifier", everything, everything * parts.small),
        Way(
            "the same, prefix computed once",
            everything,
            images * parts.prefix + everything * (parts.small - parts.prefix),
        ),
    )
    if negatives >= classes - 1:  # drawing them leaves none out
        return whole
    return (
        *whole,
        Way(f"{negatives} negatives per positive", pairs, pairs * parts.small),
        Way(
            f"{negatives} negatives per positive, prefix once, branches masked",
            pairs,
            images * parts.prefix + pairs * (parts.full - parts.prefix),
        ),
    )

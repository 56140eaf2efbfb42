"""Numbers that the paper prints, for the networks and data sets they belong to (Tables 2, 4)."""

from __future__ import annotations

import dataclasses

from branchnets.families.coded.model import CodedResNeXt
from branchnets.families.coded.zoo import BUILDERS

#: Data set -> (network, accuracy of the coded one, of the plain one): Table 2.
TABLE_2 = {
    "cifar10": ("coded_resnext29_10x11d_cifar10", 0.9441, 0.9366),
    "cifar100": ("coded_resnext29_20x6d_cifar100", 0.7828, 0.7686),
    "imagenet2012": ("coded_resnext50_32x4d_imagenet", 0.7812, 0.7805),
}


@dataclasses.dataclass(frozen=True)
class Cost:
    """A row of Table 4: ImageNet, on 8 cores of a TPUv2.

    Attributes:
      gflops: GFLOPs (multiply-adds).
      parameters: millions.
      throughput: samples a second.
      memory: GB.
    """

    gflops: float
    parameters: float
    throughput: float
    memory: float


TABLE_4 = {"plain": Cost(2.196, 25.0, 439, 15.0), "coded": Cost(2.269, 25.0, 447, 15.7)}


def final_accuracy(model: CodedResNeXt, dataset: str) -> float | None:
    """What the paper reports for this very network on this data set, else None."""
    if dataset not in TABLE_2:
        return None
    name, coded, _ = TABLE_2[dataset]
    own = BUILDERS[name](num_classes=model.num_classes)
    return coded if own.stages == model.stages else None

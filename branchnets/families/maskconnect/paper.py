"""Numbers that the paper prints: Tables 1 to 4, for the networks and data sets they belong to.

GateConnect, the workshop version, has 73.94 and 75.72 where Table 1 has 73.91 and 75.89, and 79.3
where Table 2 has 79.5; the later paper's numbers are here.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """An accuracy over several trainings, in percent.

    Attributes:
      best: of the trainings.
      mean, std: over them; None where one number is printed.
    """

    best: float
    mean: float | None = None
    std: float | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
      model: its registered name.
      connectivity: ``"full"``, ``"learned"`` or ``"random"``.
      fan_in: K.
      top1, top5: accuracies.
      train, test: parameters before and after pruning, in millions.
    """

    model: str
    connectivity: str
    fan_in: int
    top1: Accuracy
    top5: Accuracy | None = None
    train: float | None = None
    test: float | None = None


@dataclasses.dataclass(frozen=True)
class Printed:
    """A table of the paper.

    Attributes:
      name: of its file in a report.
      title: what it is about.
      dataset: registered name.
      runs: trainings that every row sums up; None where the paper does not say.
      rows: in the paper's order.
      crop_size: pixels of the crops that the network is given; None: whole images.
    """

    name: str
    title: str
    dataset: str
    runs: int | None
    rows: tuple[Row, ...]
    crop_size: int | None = None


TABLE_1 = Printed(
    "table1_cifar100", "Table 1: CIFAR-100", "cifar100", 4,
    (
        Row("maskconnect29_w8_c8", "full", 8, Accuracy(73.52, 73.37, 0.13), None, 0.86, 0.86),
        Row("maskconnect29_w8_c8", "learned", 1, Accuracy(73.91, 73.76, 0.14), None, 0.86, 0.65),
        Row("maskconnect29_w8_c8", "learned", 4, Accuracy(75.89, 75.77, 0.12), None, 0.86, 0.81),
        Row("maskconnect29_w8_c8", "random", 4, Accuracy(72.85, 72.66, 0.24), None, 0.86, 0.85),
        Row("maskconnect29_w64_c8", "full", 8, Accuracy(82.23, 82.12, 0.12), None, 34.4, 34.4),
        Row("maskconnect29_w64_c8", "learned", 1, Accuracy(82.31, 82.15, 0.15), None, 34.4, 20.5),
        Row("maskconnect29_w64_c8", "learned", 4, Accuracy(84.05, 83.94, 0.11), None, 34.4, 32.1),
        Row("maskconnect29_w64_c8", "random", 4, Accuracy(81.96, 81.73, 0.20), None, 34.4, 34.3),
    ),
)  # fmt: skip

TABLE_2 = Printed(
    "table2_imagenet", "Table 2: ImageNet", "imagenet2012", None,
    (
        Row("maskconnect50_w4_c32", "full", 32, Accuracy(77.8), Accuracy(93.3)),
        Row("maskconnect50_w4_c32", "learned", 16, Accuracy(79.1), Accuracy(94.1)),
        Row("maskconnect101_w4_c32", "full", 32, Accuracy(78.8), Accuracy(94.1)),
        Row("maskconnect101_w4_c32", "learned", 16, Accuracy(79.5), Accuracy(94.5)),
        Row("maskconnect101_w4_c64", "full", 64, Accuracy(79.6), Accuracy(94.7)),
        Row("maskconnect101_w4_c64", "learned", 32, Accuracy(79.8), Accuracy(94.8)),
    ),
)  # fmt: skip

TABLE_3 = Printed(
    "table3_cifar10", "Table 3: CIFAR-10", "cifar10", 4,
    (
        Row("maskconnect20_w4_c8", "full", 8, Accuracy(91.39, 91.13, 0.11)),
        Row("maskconnect20_w4_c8", "learned", 4, Accuracy(92.85, 92.76, 0.10)),
        Row("maskconnect29_w4_c8", "full", 8, Accuracy(92.77, 92.65, 0.09)),
        Row("maskconnect29_w4_c8", "learned", 4, Accuracy(93.88, 93.76, 0.12)),
        Row("maskconnect29_w8_c8", "full", 8, Accuracy(93.26, 93.14, 0.11)),
        Row("maskconnect29_w8_c8", "learned", 4, Accuracy(95.11, 94.96, 0.12)),
        Row("maskconnect29_w64_c8", "full", 8, Accuracy(96.35, 96.23, 0.12)),
        Row("maskconnect29_w64_c8", "learned", 4, Accuracy(96.83, 96.73, 0.11)),
    ),
)  # fmt: skip

TABLE_4 = Printed(
    "table4_miniimagenet", "Table 4: Mini-ImageNet", "mini_imagenet", 4,
    (
        Row("maskconnect20_w4_c8_miniimagenet", "full", 8, Accuracy(62.12, 61.86, 0.15)),
        Row("maskconnect20_w4_c8_miniimagenet", "learned", 4, Accuracy(66.09, 65.94, 0.16)),
        Row("maskconnect20_w4_c8_miniimagenet", "random", 4, Accuracy(62.42, 61.81, 0.32)),
        Row("maskconnect29_w8_c8_miniimagenet", "full", 8, Accuracy(68.11, 67.89, 0.19)),
        Row("maskconnect29_w8_c8_miniimagenet", "learned", 4, Accuracy(71.36, 71.18, 0.19)),
        Row("maskconnect29_w8_c8_miniimagenet", "random", 4, Accuracy(67.97, 67.53, 0.20)),
    ),
    crop_size=64,
)  # fmt: skip

TABLES = (TABLE_1, TABLE_2, TABLE_3, TABLE_4)

"""The price of leaving the network early, for the section on early decoding."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from branchnets.families.coded.analysis import early, parts
from branchnets.families.coded.analysis.early import Decoded, Leaving
from branchnets.families.study import Subject
from branchnets.report import style
from branchnets.report.content import Figure, Table
from branchnets.report.stats import bootstrap

if TYPE_CHECKING:
    from branchnets.families.coded.family import CodedFamily

#: Name in figures of merit -> loss of accuracy that is tolerated where thresholds are chosen.
TOLERATED = {"without_loss": 0.0, "for_one_point": 0.01}


@dataclasses.dataclass(frozen=True)
class Point:
    """An operating point, chosen on one split and judged on the test split.

    Attributes:
      index: among the thresholds.
      there: change of accuracy where it was chosen.
      change: of accuracy on the test split.
      interval: of that change, 95 %, paired bootstrap over images.
      saved: share of the multiply-adds, on the test split.
    """

    index: int
    there: float
    change: float
    interval: tuple[float, float]
    saved: float


@dataclasses.dataclass(frozen=True)
class Studied:
    """Leaving early on the test split, with thresholds of another.

    Attributes:
      split: where thresholds and operating points are chosen; None: there is no other split than
        the studied one, the thresholds are its own and no operating point is chosen.
      images: how many that split has.
      leaving: on the test split.
      points: name -> operating point.
    """

    split: str | None
    images: int
    leaving: Leaving
    points: dict[str, Point]

    @property
    def source(self) -> str:
        """Whose thresholds these are, in words."""
        return f"{self.split or 'the same'} images"

    @property
    def figures_of_merit(self) -> dict[str, float]:
        """What the operating points save and cost, on the test split."""
        saved = {f"macs_saved_{name}": point.saved for name, point in self.points.items()}
        change = {f"accuracy_change_{name}": point.change for name, point in self.points.items()}
        return saved | change


def study(family: CodedFamily, subject: Subject, decoded: Decoded, cost: np.ndarray) -> Studied:
    """Chooses thresholds and operating points on one split and judges them on the test split.

    Args:
      family, subject: to run the decoders on the split to choose on.
      decoded: the test split.
      cost: multiply-adds until each answer, [L+1].
    """
    split = early.choosing_split(subject)
    elsewhere = decoded if split is None else early.decode(family, subject, split)
    thresholds = early.choose_thresholds(elsewhere)
    leaving = early.leave_early(decoded, cost, thresholds)
    points = {}
    if split is not None:
        chosen = early.leave_early(elsewhere, cost, thresholds)
        points = {name: judge(chosen, leaving, loss) for name, loss in TOLERATED.items()}
    return Studied(split, len(elsewhere.right), leaving, points)


def judge(chosen: Leaving, tested: Leaving, loss: float) -> Point:
    """The cheapest point that loses at most so much on one split, as it does on another.

    Args:
      chosen, tested: the same thresholds on the split to choose on, and on the one to judge on.
      loss: of accuracy, a share.
    """
    i = early.cheapest(chosen, loss)
    change = tested.right[i].astype(float) - tested.right[-1]
    return Point(
        i,
        float(chosen.accuracy[i] - chosen.accuracy[-1]),
        float(change.mean()),
        bootstrap(change),
        float(1 - tested.macs[i] / tested.macs[-1]),
    )


def text(decoded: Decoded, cost: np.ndarray, found: Studied) -> str:
    """A paragraph on leaving early."""
    source = f"{found.images:,} {found.split} images" if found.split else "the studied images"
    return (
        "What the paper does not show: an image may leave at the first block whose decoder is "
        "confident enough, and the rest of the network is not run for it. The thresholds of all "
        "blocks move together, each the same quantile of its block's own confidences on "
        f"{source} (labels are not used for that). Up to a block's decoder an image costs the "
        "blocks before, the block's reduction, its grouped convolution and the second moments for "
        f"the energies, but neither expansion nor shortcut: {parts.percent(cost[0] / cost[-1])} of "
        f"the network for {decoded.names[0]}. {_saved(found)}"
    )


def _saved(found: Studied) -> str:
    """What the operating points save, where they were chosen and where they are judged."""
    if found.split is None:
        return (
            "There is no other split to choose an operating point on, so none is: what a point of "
            "the curve saves here says nothing of new images."
        )
    words = {
        "without_loss": "lose no accuracy there",
        "for_one_point": "lose at most one point of accuracy there",
    }
    told = []
    for name, point in found.points.items():
        told.append(
            f"the cheapest thresholds that {words[name]} save {parts.percent(point.saved)} of the "
            "multiply-adds on test images and change the accuracy on them by "
            f"{parts.points(point.change)} ({parts.between(point.interval)})"
        )
    caution = (
        "The network was trained with these images, and its confidences tend to be higher on "
        "them than on new ones; data.validation_size holds images out to choose on."
        if found.split == "train"
        else "Test images had no part in the choice."
    )
    return f"Operating points were chosen on the {found.split} images: {'; '.join(told)}. {caution}"


def curve(decoded: Decoded, cost: np.ndarray, found: Studied) -> Figure:
    """Accuracy against multiply-adds, with the operating points."""
    leaving = found.leaving
    drawing, axes = style.figure()
    share, accuracies = leaving.macs / cost[-1], decoded.right.mean(0)
    axes.plot(
        100 * share, 100 * leaving.accuracy, color=style.BLUE, marker=".", label="leaving when sure"
    )
    axes.plot(
        100 * cost / cost[-1], 100 * accuracies, color=style.GREY, marker="D", linestyle="--",
        markersize=5, label="everybody at one block (dashed: at random between two)",
    )  # fmt: skip
    for name, x, y in zip(decoded.names, cost / cost[-1], accuracies, strict=True):
        above = y > np.interp(x, share, leaving.accuracy)
        axes.annotate(
            name, (100 * x, 100 * y), xytext=(0, 7) if above else (4, -12), color=style.GREY,
            # The dashed line rises: it leaves room above on the left, and below on the right.
            textcoords="offset points", fontsize=7, ha="right" if above or x > 0.9 else "left",
        )  # fmt: skip
    looks = {"without_loss": ("o", "no loss"), "for_one_point": ("s", "one point at most")}
    for name, point in found.points.items():
        marker, words = looks[name]
        axes.plot(
            100 * share[point.index], 100 * leaving.accuracy[point.index], linestyle="none",
            marker=marker, markersize=11, markerfacecolor="none", color=style.VERMILLION,
            label=f"chosen on {found.split} images: {words}",
        )  # fmt: skip
    style.label(axes, "mean multiply-adds of an image (% of the network)", "test accuracy (%)")
    axes.margins(0.08)
    style.legend(axes, loc="lower right")
    return Figure(
        "early_leaving",
        "Accuracy against mean multiply-adds when an image leaves at the first block whose decoder "
        f"is confident enough, one point a threshold; thresholds are from {found.source}. Not in "
        "the paper.",
        drawing,
    )


def _quantile(index: int, leaving: Leaving) -> float:
    return float(np.linspace(0, 1, len(leaving.macs))[index])


def tables(decoded: Decoded, cost: np.ndarray, found: Studied) -> tuple[Table, ...]:
    """Every threshold, and the operating points where there are some."""
    sweep = _sweep(decoded, cost, found)
    return (sweep, _points(found)) if found.points else (sweep,)


def _sweep(decoded: Decoded, cost: np.ndarray, found: Studied) -> Table:
    leaving = found.leaving
    rows: list[tuple[Any, ...]] = [
        (_quantile(i, leaving), float(a), float(m), float(m / cost[-1]), *left.tolist())
        for i, (a, m, left) in enumerate(
            zip(leaving.accuracy, leaving.macs, leaving.left, strict=True)
        )
    ]
    return Table(
        "early_leaving",
        "Leaving early: each block's threshold is the quantile of its confidences on "
        f"{found.source}; accuracy and mean multiply-adds of a test image, and the share of them "
        "that leave at each decoder.",
        ("quantile", "accuracy", "MACs", "of the network", *(f"at {n}" for n in decoded.names)),
        tuple(rows),
    )


def _points(found: Studied) -> Table:
    leaving = found.leaving
    rows = [
        (TOLERATED[name], p.there, _quantile(p.index, leaving), float(leaving.accuracy[p.index]),
         p.change, *p.interval, float(leaving.macs[p.index]), p.saved)
        for name, p in found.points.items()
    ]  # fmt: skip
    return Table(
        "early_leaving_points",
        f"Operating points of leaving early, chosen on {found.split} images as the cheapest that "
        "lose no more accuracy there than is tolerated; then accuracy on test images, its change "
        "from the whole network's with a 95 % interval (paired bootstrap over images), mean "
        "multiply-adds of an image and the share that is saved.",
        ("tolerated", f"change on {found.split}", "quantile", "accuracy", "change", "from", "to",
         "MACs", "saved"),
        tuple(rows),
    )  # fmt: skip

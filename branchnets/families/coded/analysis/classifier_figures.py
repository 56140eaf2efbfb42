"""Figures of the binary classifiers: precision and recall of all, score distributions of some."""

from __future__ import annotations

from typing import Any

import numpy as np

from branchnets.families.coded.analysis.classifiers import Classifiers
from branchnets.families.study import Subject
from branchnets.report import style
from branchnets.report.content import Figure

#: The paper's figure of precision and recall for a data set; Fig. 2b for others.
_NAMES = {"imagenet2012": "fig2c_precision_recall", "cifar100": "fig8_precision_recall"}
#: Names are written beside the points of so few classes.
_FEW = 12


def scatter(found: Classifiers, subject: Subject) -> Figure:
    """Precision against recall of every classifier, at the threshold of best training F1.

    Differs: section 4.3 names precision first, as x; see the caption.
    """
    drawing, axes = style.figure(6.4, 4.8)
    judged = [("negatives: other classes", found.inside, style.BLUE, "o")]
    if found.beyond is not None:
        judged.append((f"negatives: {subject.outside_name}", found.beyond, style.VERMILLION, "^"))
    for name, one, colour, marker in judged:
        x, y = one.natural["recall"], one.natural["precision"]
        axes.scatter(x, y, color=colour, marker=marker, s=28, alpha=0.8, label=name)
    x, y = found.inside.natural["recall"], found.inside.natural["precision"]
    style.label(axes, "recall", "precision")
    axes.margins(0.1)
    style.legend(axes)
    if len(x) <= _FEW:
        ends = y if found.beyond is None else found.beyond.natural["precision"]
        axes.vlines(x, y, ends, color=style.GREY, linewidth=0.6)
        _names(axes, x, y, subject.class_names, ends)
    beyond = (
        " Out-of-distribution negatives are weighted to the same ratio." if found.beyond else ""
    )
    return Figure(
        _NAMES.get(subject.dataset, "fig2b_precision_recall"),
        f"Precision and recall of the {len(x):,} binary classifiers on test images, with the "
        f"test's ratio of negatives.{beyond} Recall is on x: section 4.3 of the paper says "
        "that x is precision, but appendix C that the points of Fig. 2c lie on vertical lines "
        "because recall is a multiple of 1/50.",
        drawing,
    )


def _names(
    axes: Any, x: np.ndarray, y: np.ndarray, names: tuple[str, ...], ends: np.ndarray
) -> None:
    """Writes class names beside their points, those of one point together, clear of each other.

    Args:
      axes: with their limits.
      x, y: of the points, [K]; a class with nan has no point.
      names: K names.
      ends: y where the line that begins at each point ends, [K].
    """
    places: dict[tuple[float, float], list[str]] = {}
    for a, name in enumerate(names):
        if np.isfinite(x[a]) and np.isfinite(y[a]):
            places.setdefault((round(x[a], 3), round(y[a], 3)), []).append(name)
    # Axes are about this many points wide and high; text is placed where it covers no other.
    size = 72 * np.array(axes.figure.get_size_inches()) * (0.88, 0.88)
    low, high = np.array([axes.get_xlim(), axes.get_ylim()]).T
    lines = [
        np.array([(at, min(one)), (at, max(one))])
        for at, *one in zip(x, y, ends, strict=True)
        if np.isfinite([at, *one]).all()
    ]
    taken = [(line - low) / (high - low) * size + ((-4, -4), (4, 4)) for line in lines]
    for place, here in sorted(places.items()):
        text = ", ".join(here)
        at = (np.array(place) - low) / (high - low) * size
        half = np.array([2.4 * len(text), 5])
        offsets = [(0, 11), (0, -11), (half[0] + 7, 0), (-half[0] - 7, 0), (0, 21), (0, -21)]
        boxes = [np.array([at + offset - half, at + offset + half]) for offset in offsets]
        best = int(np.argmin([sum(_overlap(box, other) for other in taken) for box in boxes]))
        taken.append(boxes[best])
        axes.annotate(
            text, place, xytext=offsets[best], textcoords="offset points", fontsize=8,
            color=style.GREY, ha="center", va="center",
        )  # fmt: skip


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Area that two boxes ((left, bottom), (right, top)) share."""
    return float(np.prod(np.maximum(np.minimum(a[1], b[1]) - np.maximum(a[0], b[0]), 0)))


def histograms(found: Classifiers, subject: Subject, most: int, name: str) -> Figure:
    """Score distributions of the first classes: positives, negatives, other images."""
    scored = _by_class(found, min(most, len(found.ratio)))
    columns = min(len(scored), 2)
    rows = -(-len(scored) // columns)
    width, height = (6.4, 3.6) if len(scored) == 1 else (3.8 * columns, 1.9 * rows + 0.6)
    drawing, axes = style.figure(width, height, rows, columns, squeeze=False)
    flat = axes.reshape(-1)
    for i, panel in enumerate(flat):
        if i >= len(scored):
            panel.set_visible(False)
            continue
        _histogram(panel, scored[i], found.thresholds[i], subject.outside_name)
        x = "score (logit)" if i >= len(scored) - columns else ""
        y = "density" if i % columns == 0 else ""
        style.label(panel, x, y, f"class {subject.class_names[i]}")
    if len(scored) == 1:
        style.legend(flat[0])
    else:
        handles, labels = flat[0].get_legend_handles_labels()
        drawing.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=9)
    which = "first class" if len(scored) == 1 else f"first {len(scored)} classes"
    return Figure(
        name,
        f"Scores that the binary classifier of the {which} gives test images of its class, of the "
        f"other classes{' and other images' if found.outside else ''}; each distribution has area "
        "1. Dashed: the threshold of best F1 on training images.",
        drawing,
    )


def _by_class(found: Classifiers, most: int) -> list[tuple[np.ndarray, ...]]:
    """(positives, negatives, outside) of the first classes."""
    classes = len(found.ratio)
    scored: list[tuple[np.ndarray, ...]] = []
    own = found.test.by_class(classes)
    far = found.outside.by_class(classes) if found.outside else None
    for _ in range(most):
        positives, negatives = next(own)
        others = next(far)[1] if far else np.zeros(0)
        scored.append((positives, negatives, others))
    return scored


def _histogram(
    axes: Any, scored: tuple[np.ndarray, ...], threshold: float, outside_name: str
) -> None:
    together = np.concatenate(scored)
    edges = np.linspace(together.min(), together.max(), 41) if len(together) else np.arange(2.0)
    looks = (
        ("positives", style.BLUE),
        ("negatives", style.VERMILLION),
        (outside_name or "outside", style.GREEN),
    )
    for values, (label, colour) in zip(scored, looks, strict=True):
        if len(values):
            settings: dict[str, Any] = {"bins": edges, "density": True, "color": colour}
            axes.hist(values, alpha=0.35, label=label, **settings)
            axes.hist(values, histtype="step", linewidth=1.2, **settings)
    if np.isfinite(threshold):
        axes.axvline(threshold, color=style.BLACK, linestyle="--", linewidth=1, label="threshold")

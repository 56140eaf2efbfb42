"""Which classes a network knows and which it takes for others: a section of every report."""

from __future__ import annotations

import numpy as np

from branchnets import confusion
from branchnets.families.study import Subject
from branchnets.report import style
from branchnets.report.content import Figure, Section, Table

#: Classes in the figure at most.
MOST_CLASSES = 30


def section(subject: Subject) -> Section:
    """Accuracy by class and confusions, from the counts of the evaluation (``metrics``)."""
    found = confusion.matrices(subject.metrics)
    matrix, names = found[""], subject.class_names
    count, accuracy = confusion.per_class(matrix)
    mistakes = confusion.pairs(matrix)
    seen = count > 0
    return Section(
        "Classes",
        _text(matrix, names),
        (_figure(matrix, names),) if mistakes else (),
        (
            confusion.class_table(found, names, "run_classes", subject.studied),
            _confusions(mistakes, names),
        ),
        {
            "worst": float(accuracy[seen].min()),
            "median": float(np.median(accuracy[seen])),
            "best": float(accuracy[seen].max()),
            "wrong": sum(pair.count for pair in mistakes),
        },
    )


def _text(matrix: np.ndarray, names: tuple[str, ...]) -> str:
    mistakes = confusion.pairs(matrix)
    total = int(matrix.sum())
    if not mistakes:
        return f"All {total:,} images are given their class."
    count, accuracy = confusion.per_class(matrix)
    worst = int(np.nanargmin(accuracy))
    wrong, first = total - int(np.trace(matrix)), mistakes[0]
    half = int(np.searchsorted(np.cumsum([p.count for p in mistakes]), wrong / 2)) + 1
    empty = int(np.sum(count == 0))
    text = (
        f"{wrong:,} of {total:,} images are taken for another class. The class with the lowest "
        f"accuracy is {names[worst]}, {accuracy[worst]:.1%} of {count[worst]:,} images. Most often "
        f"{names[first.label]} is taken for {names[first.answer]}: {first.count:,} of "
        f"{count[first.label]:,} images. {half:,} of the {len(mistakes):,} pairs of classes that "
        "are confused account for half of the mistakes."
    )
    return text + (f" {empty:,} classes have no images here." if empty else "")


def _figure(matrix: np.ndarray, names: tuple[str, ...]) -> Figure:
    shown = _shown(matrix)
    part = matrix[np.ix_(shown, shown)]
    count = np.maximum(matrix.sum(axis=1)[shown], 1)
    share = np.ma.masked_array(100 * part / count[:, None], np.eye(len(shown), dtype=bool))
    side = 2.4 + 0.28 * max(len(shown), 8)
    drawing, axes = style.figure(side + 0.8, side)
    axes.grid(False)
    axes.set_facecolor("#dddddd")  # of the diagonal, what is right
    top = max(float(share.max()), 1.0)
    image = axes.imshow(share, cmap="viridis", vmin=0, vmax=top, interpolation="nearest")
    for a, b in np.argwhere(part > 0):
        light = a == b or share[a, b] > 0.6 * top
        colour = style.BLACK if light else "white"
        axes.text(b, a, f"{part[a, b]}", ha="center", va="center", fontsize=6, color=colour)
    labels = [names[k] for k in shown]
    axes.set_xticks(range(len(shown)), labels, fontsize=7, rotation=90)
    axes.set_yticks(range(len(shown)), labels, fontsize=7)
    style.label(axes, "answer of the network", "class")
    drawing.colorbar(image, ax=axes, label="images of the class (%)", shrink=0.8)
    left_out = len(matrix) - len(shown)
    note = f" {left_out:,} other classes, with fewer mistakes, are left out." if left_out else ""
    return Figure(
        "confusion",
        "Images of each class (rows) by the network's answer (columns): colour is the share of the "
        f"class's images, numbers are images; grey: what is right.{note}",
        drawing,
    )


def _shown(matrix: np.ndarray) -> np.ndarray:
    """The classes that are drawn: all, or those with the most mistakes in row and column."""
    if len(matrix) <= MOST_CLASSES:
        return np.arange(len(matrix))
    wrong = matrix - np.diag(np.diagonal(matrix))
    order = np.argsort(-(wrong.sum(axis=0) + wrong.sum(axis=1)), kind="stable")
    return np.sort(order[:MOST_CLASSES])


def _confusions(mistakes: list[confusion.Pair], names: tuple[str, ...]) -> Table:
    return Table(
        "confusions",
        "Every pair of a class and another that its images are taken for, the most frequent first: "
        "images, and their share among those of the class.",
        ("class", "taken for", "images", "share"),
        tuple((names[p.label], names[p.answer], p.count, p.share) for p in mistakes),
    )

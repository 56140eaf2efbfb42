"""The section on early decoding: Fig. 4, and what :mod:`leaving_report` has on leaving early."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from branchnets.families.coded.analysis import early, leaving_report, parts
from branchnets.families.coded.analysis.early import FINAL, Decoded
from branchnets.families.coded.analysis.paper import final_accuracy
from branchnets.families.study import Subject
from branchnets.report import style
from branchnets.report.content import Figure, Section, Table
from branchnets.report.stats import proportion_interval

if TYPE_CHECKING:
    from branchnets.families.coded.family import CodedFamily


def section(family: CodedFamily, subject: Subject) -> Section | None:
    """Decoders and leaving early on the test split; None without coded blocks."""
    if not family.schemes:
        return None
    decoded = early.decode(family, subject)
    macs = early.macs_until(family.model, family.schemes, subject.image_shape)
    cost = np.array([macs[name] for name in decoded.names], float)
    leaving = leaving_report.study(family, subject, decoded, cost)
    accuracy = dict(zip(decoded.names, decoded.right.mean(0).tolist(), strict=True))
    confidence = decoded.confidence.mean(0).tolist()
    return Section(
        "Early decoding",
        f"{_text(decoded)}\n\n{leaving_report.text(decoded, cost, leaving)}",
        (_figure(decoded, family, subject), leaving_report.curve(decoded, cost, leaving)),
        (_table(decoded, cost), *leaving_report.tables(decoded, cost, leaving)),
        {
            "early_decoding_accuracy": {b: accuracy[b] for b in family.schemes},
            "last_block_accuracy": accuracy[decoded.names[-2]],
            "final_accuracy": accuracy[FINAL],
            "top5": dict(zip(decoded.names, decoded.top5.mean(0).tolist(), strict=True)),
            "confidence": dict(zip(decoded.names, confidence, strict=True)),
            "macs": dict(macs),
            **leaving.figures_of_merit,
        },
    )


def _text(decoded: Decoded) -> str:
    n = len(decoded.right)
    accuracies = decoded.right.mean(0)
    each = ", ".join(
        f"{name} {parts.percent(a)}"
        for name, a in zip(decoded.names[:-1], accuracies[:-1], strict=True)
    )
    return (
        "The energies v of a coded block's branches, scaled to sum to N_act, are compared with all "
        "codewords, and the nearest names the class: argmin_k ||v - w_k||_2 (Eq. 7). Confidence "
        "is the softmax over classes of minus the distance.\n\n"
        f"On {n:,} test images the decoders are right in: {each}; the whole network in "
        f"{parts.percent(accuracies[-1])}. {_order(decoded)}"
    )


def _order(decoded: Decoded) -> str:
    """Whether decoding gets better from block to block, by paired differences."""
    accuracies = decoded.right.mean(0)[:-1]
    if len(accuracies) < 2:
        return ""
    falls = [
        f"{decoded.names[i + 1]} is {100 * (a - b):.1f} points below {decoded.names[i]}"
        for i, (a, b) in enumerate(zip(accuracies, accuracies[1:], strict=False))
        if b < a
    ]
    if not falls:
        return "Decoding improves, or does not get worse, from block to block, as in the paper."
    return f"Decoding does not improve at every block: {'; '.join(falls)}."


def _figure(decoded: Decoded, family: CodedFamily, subject: Subject) -> Figure:
    n = len(decoded.right)
    width = max(6.4, 0.75 * len(decoded.names) + 1.5)
    drawing, (upper, lower) = style.figure(width, 5.2, 2, 1, sharex=True, height_ratios=(3, 2))
    x = np.arange(len(decoded.names))
    for name, values, colour, marker, aside in (
        ("top-1", decoded.right, style.BLUE, "o", -0.03),
        ("top-5", decoded.top5, style.ORANGE, "^", 0.03),
    ):
        mean = values.mean(0)
        ends = np.array([proportion_interval(int(v.sum()), n) for v in values.T])
        bars = 100 * np.abs(ends.T - mean)
        upper.errorbar(
            x + aside, 100 * mean, bars, color=colour, marker=marker, capsize=3, label=name
        )
    lower.plot(x, 100 * decoded.confidence.mean(0), color=style.GREEN, marker="s")
    lower.set_xticks(x, [name.replace("/", "\n") for name in decoded.names], fontsize=8)
    lower.set_ylim(0, 105)
    style.label(upper, "", "test accuracy (%)")
    style.label(lower, "decoder", "mean confidence (%)")
    paper = final_accuracy(family.model, subject.dataset)
    if paper is not None:
        style.reference(upper, 100 * paper, f"paper, final: {100 * paper:.2f}")
    style.legend(upper, loc="lower right")
    return Figure(
        "fig4_early_decoding",
        f"Accuracy of every block's early decoder and of the whole network on {n:,} test images, "
        "with Wilson's 95 % intervals, and the mean confidence of the answers.",
        drawing,
    )


def _table(decoded: Decoded, cost: np.ndarray) -> Table:
    n, rows = len(decoded.right), []
    for i, name in enumerate(decoded.names):
        right = decoded.right[:, i]
        low, high = proportion_interval(int(right.sum()), n)
        rows.append(
            (name, float(right.mean()), low, high, float(decoded.top5[:, i].mean()),
             float(decoded.confidence[:, i].mean()), int(cost[i]), float(cost[i] / cost[-1]))
        )  # fmt: skip
    return Table(
        "fig4_early_decoding",
        f"Early decoders on {n:,} test images: accuracy with Wilson's 95 % interval, top-5, mean "
        "confidence, and multiply-adds of an image until the decoder has answered.",
        ("decoder", "accuracy", "from", "to", "top-5", "confidence", "MACs", "of the network"),
        tuple(rows),
    )

"""The section on how the masks evolved: entropy and churn of every module over training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from branchnets.families.maskconnect.analysis import evolution
from branchnets.families.maskconnect.analysis.evolution import Series, Stretch
from branchnets.families.study import Subject
from branchnets.report import style
from branchnets.report.content import Figure, Section, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from branchnets.families.maskconnect.family import MaskConnectFamily

#: With more modules, a scale of colours stands for the legend.
_NAMED = 12


def section(family: MaskConnectFamily, subject: Subject) -> Section | None:
    """Entropy and churn; None where nothing is learned, or no line of training is there."""
    if family.connectivity not in ("learned", "real"):
        return None
    history = subject.history()
    names = list(family.model.modules())
    entropy = evolution.series(history, names, evolution.ENTROPY)
    churn = evolution.series(history, names, evolution.CHURN)
    if entropy is None or churn is None:
        return None
    phases = evolution.stretches(family.plan)
    end = max((p.end for p in phases if p.mode == "learn"), default=0.0)
    entropy, churn = evolution.learning(entropy, end), evolution.learning(churn, end)
    if not len(entropy.epochs) or not len(churn.epochs):
        return None
    turned = evolution.turnover(churn)
    return Section(
        "Evolution of the masks",
        _text(family, entropy, churn, turned),
        (_figure(history, entropy, churn, phases),),
        (_table(entropy, churn, turned),),
        {
            "entropy_at_the_end": {n: v[-1] for n, v in entropy.values.items()},
            "churn_at_the_end": {n: v[-1] for n, v in churn.values.items()},
            "replacements": turned,
        },
    )


def _text(
    family: MaskConnectFamily, entropy: Series, churn: Series, turned: dict[str, float]
) -> str:
    last = {name: values[-1] for name, values in entropy.values.items()}
    least, most = min(last, key=last.__getitem__), max(last, key=last.__getitem__)
    inputs = max(spec.branches for spec in family.model.modules().values())
    equal = evolution.equal_entropy(family.model.fan_in, inputs)
    quiet = float(np.nanmean([values[-1] for values in churn.values.values()]))
    return (
        "The entropy of a module's masks is -sum_k m_jk log m_jk / log C, mean over its branches: "
        "1 where all inputs are equally likely, as at the start, "
        f"{equal:.3f} where K = {family.model.fan_in} are equally likely and the others out of "
        "question. Churn is the share of the K largest entries that one step replaces.\n\n"
        f"After {entropy.epochs[-1]:g} epochs of learning the entropy is between {last[least]:.3f} "
        f"({least}) and {last[most]:.3f} ({most}). {_moved(last, equal)} "
        f"At its end {quiet:.2%} of the connections changed in a step; over all of it a connection "
        f"was replaced {np.mean(list(turned.values())):.1f} times on average."
        f"{_frozen(family)}"
    )


def _moved(last: dict[str, float], equal: float) -> str:
    """Whether the masks came nearer to a decision or stayed where they began."""
    way = (1 - float(np.mean(list(last.values())))) / max(1 - equal, 1e-9)
    return (
        f"That is {way:.0%} of the way from undecided masks to K equal inputs (mean over modules)."
    )


def _frozen(family: MaskConnectFamily) -> str:
    if family.connectivity == "real" or all(mode == "learn" for mode, _ in family.plan):
        return ""
    return " Then the K largest entries were frozen, and the weights trained on."


def _figure(
    history: Sequence[Any], entropy: Series, churn: Series, phases: Sequence[Stretch]
) -> Figure:
    drawing, axes = style.figure(8.6, 7.6, 3, 1, height_ratios=(3, 3, 2))
    colours = _colours(len(entropy.values))
    for one, found, factor in ((axes[0], entropy, 1), (axes[1], churn, 100)):
        for (name, values), colour in zip(found.values.items(), colours, strict=True):
            one.plot(
                found.epochs, factor * values, color=colour, label=name, marker=".", linewidth=1.3
            )
        _phases(one, phases)
        one.set_xlim(0, 1.05 * max(found.epochs[-1], 1e-6))
    style.label(axes[0], "", "entropy of the masks")
    style.label(axes[1], "epochs", "top-K connections\nnew in a step (%)")
    axes[1].set_ylim(bottom=0)
    _accuracy(axes[2], history)
    _phases(axes[2], phases)
    style.label(axes[2], "epochs", "accuracy (%)")
    axes[2].set_xlim(0, phases[-1].end)
    if len(entropy.values) <= _NAMED:
        style.legend(axes[0], loc="upper left", bbox_to_anchor=(1.0, 1.0))
    else:
        _scale(drawing, axes[0], list(entropy.values))
    style.legend(axes[2], loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return Figure(
        "mask_evolution",
        "While masks are learned: their entropy and the share of the K largest entries that a step "
        "replaces, for every module from early (dark) to late (light); each point is a mean over "
        "the steps since the one before. Below, accuracy over the whole run. Dotted lines are "
        "boundaries of phases; in the grey part masks are not learned.",
        drawing,
    )


def _colours(count: int) -> list[Any]:
    """Dark to light with depth; the lightest end of the scale cannot be read on white."""
    from matplotlib import colormaps

    return [colormaps["viridis"](x) for x in np.linspace(0, 0.88, count)]


def _phases(axes: Axes, phases: Sequence[Stretch]) -> None:
    for phase in phases[1:]:
        axes.axvline(phase.start, color=style.GREY, linestyle=":", linewidth=1.2)
    for phase in phases:
        if phase.mode != "learn":
            axes.axvspan(phase.start, phase.end, color="#efefef", zorder=0)


def _accuracy(axes: Axes, history: Sequence[Any]) -> None:
    for split, colour in (
        ("train", style.ORANGE), ("validation", style.BLUE), ("test", style.PURPLE)
    ):  # fmt: skip
        found = evolution.curve(history, split, "accuracy")
        if len(found):
            axes.plot(found[:, 0], 100 * found[:, 1], color=colour, label=split, linewidth=1.3)


def _scale(drawing: Any, axes: Axes, names: list[str]) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap

    colours = ScalarMappable(cmap=ListedColormap(_colours(256)))
    bar = drawing.colorbar(colours, ax=axes, pad=0.01)
    bar.set_ticks([0, 1], labels=[names[0], names[-1]], fontsize=8)


def _table(entropy: Series, churn: Series, turned: dict[str, float]) -> Table:
    rows = tuple(
        (
            name,
            values[0],
            values[-1],
            churn.values[name][0],
            churn.values[name][-1],
            turned[name],
        )
        for name, values in entropy.values.items()
    )
    return Table(
        "mask_evolution",
        "Masks of each module in the first and the last line of training in which they were "
        "learned: entropy, share of the top K that a step replaces; and how often a connection was "
        "replaced in all.",
        ("module", "entropy, first", "entropy, last", "churn, first", "churn, last", "replaced"),
        rows,
    )

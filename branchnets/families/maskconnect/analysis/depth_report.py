"""The section on active branches: Figs. 4 and 5, and parameters and operations after pruning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from branchnets.families.maskconnect.analysis import depth, groups
from branchnets.families.maskconnect.analysis.depth import Part
from branchnets.families.maskconnect.analysis.wiring import STATES, Wiring, title, wiring
from branchnets.families.study import Subject
from branchnets.report import style
from branchnets.report.content import Figure, Section, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from branchnets.families.maskconnect.family import MaskConnectFamily

#: Networks with random connections that are drawn to compare with.
DRAWS = 1000

_MARKERS = "osD^vPX"
_COLOURS = tuple(colour for colour in style.PALETTE if colour != style.GREEN)  # of the bars


def section(family: MaskConnectFamily, subject: Subject) -> Section | None:
    """Active branches by depth; None for a true ResNeXt, where all are."""
    found = wiring(family, subject.variables)
    if found is None:
        return None
    parts = depth.parts(family.model, found, subject.image_shape)
    random = _random(family, found, subject.seed)
    beside = _beside(family, subject, found)
    totals = {
        f"{what}{when}": sum(getattr(part, what)[i] for part in parts)
        for what in ("parameters", "macs")
        for i, when in enumerate(("", "_after_pruning"))
    }
    return Section(
        "Active branches",
        _text(family, found, totals, random),
        (_figure(family, subject, found, parts, random, beside),),
        (_table(parts, found),),
        {
            "active_share": found.active / found.branches,
            **({} if random is None else {"active_share_at_random": _share(random, found)}),
            **totals,
            "active_branches": {name: len(kept) for name, kept in found.kept.items()},
        },
    )


def _random(family: MaskConnectFamily, found: Wiring, seed: int) -> np.ndarray | None:
    """[draws, modules] active branches with K random inputs; None where K means nothing."""
    if family.connectivity not in ("learned", "random"):
        return None
    branches = {name: spec.branches for name, spec in found.modules.items()}
    # As many numbers are drawn for wide and deep networks as for small ones.
    size = sum(count**2 for count in branches.values())
    draws = int(np.clip(DRAWS * 576 / size, 50, DRAWS))
    return depth.chance(branches, family.model.fan_in, draws, seed)


def _share(random: np.ndarray, found: Wiring) -> float:
    return float(random.sum(1).mean() / found.branches)


def _beside(family: MaskConnectFamily, subject: Subject, found: Wiring) -> list[groups.Group]:
    """Runs to compare with whose networks have the same modules."""
    own = {name: spec.branches for name, spec in found.modules.items()}
    alike = []
    for one in groups.group(subject.others):
        active = one.active()
        sizes = one.sizes
        if one.dataset == subject.dataset and list(active) == list(own) and sizes is not None:
            alike += [one] if set(own.values()) == {sizes.branches} else []
    # The run itself is in the bars.
    return alike if len(alike) > 1 or any(len(one.runs) > 1 for one in alike) else []


def _text(
    family: MaskConnectFamily, found: Wiring, totals: dict[str, int], random: np.ndarray | None
) -> str:
    lines = [
        f"{title(family)}. {STATES[found.state]}",
        f"{found.active} of {found.branches} branches reach the output "
        f"({found.active / found.branches:.1%}). Without the others the network has "
        f"{totals['parameters_after_pruning']:,} of {totals['parameters']:,} parameters "
        f"({totals['parameters_after_pruning'] / totals['parameters']:.1%}) and "
        f"{totals['macs_after_pruning']:,} of {totals['macs']:,} multiply-adds for an image "
        f"({totals['macs_after_pruning'] / totals['macs']:.1%}). Every branch of the last module "
        "counts: the classifier sums them all.",
    ]
    if random is not None:
        total = random.sum(1)
        lines.append(
            f"With K random inputs {total.mean():.1f} ± {total.std(ddof=1):.1f} branches would "
            f"reach the output (mean and standard deviation of {len(random):,} networks drawn). "
            f"{_against_chance(family, found, total)}"
        )
    return "\n\n".join(lines)


def _against_chance(family: MaskConnectFamily, found: Wiring, total: np.ndarray) -> str:
    if family.connectivity != "learned":
        return ""
    fewer, more = int((total <= found.active).sum()), int((total >= found.active).sum())
    if min(fewer, more) > 0.025 * len(total):
        return "So many are left by chance too: their number alone does not show what was learned."
    word, count = ("few", fewer) if fewer < more else ("many", more)
    return (
        f"{count or 'None'} of these networks leave{'s' * (count <= 1)} as {word} as were learned."
    )


def _figure(
    family: MaskConnectFamily,
    subject: Subject,
    found: Wiring,
    parts: Sequence[Part],
    random: np.ndarray | None,
    beside: Sequence[groups.Group],
) -> Figure:
    names = list(found.modules)
    width = float(np.clip(0.62 * len(names) + 2.2, 6.4, 14))
    drawing, (upper, lower) = style.figure(width, 6.4, 2, 1, sharex=True, height_ratios=(3, 2))
    x = np.arange(len(names))
    _counts(upper, x, found, random)
    for number, one in enumerate(beside):
        _line(upper, x, one, number, len(beside))
    style.label(upper, "", "branches that reach the output")
    upper.set_ylim(0, max(s.branches for s in found.modules.values()) * 1.05)
    style.legend(upper, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    _parameters(lower, x, [part for part in parts if part.name in found.modules])
    style.label(lower, "module, from input to output", "parameters")
    style.legend(lower, loc="upper left")
    small = len(names) > 12
    texts = [name.replace("stage", "").replace("/block", ".") for name in names]
    lower.set_xticks(x, texts if small else [n.replace("/", "\n") for n in names], fontsize=8)
    figure = "fig5" if subject.dataset.startswith("imagenet") else "fig4"
    return Figure(f"{figure}_active_branches", _caption(random, beside, small), drawing)


def _caption(random: np.ndarray | None, beside: Sequence[groups.Group], small: bool) -> str:
    words = ["Branches of each module that reach the output, and parameters that pruning leaves."]
    if small:
        words.append("2.1 is stage2/block1.")
    if random is not None:
        words.append("Grey: K random inputs, mean and standard deviation.")
    if beside:
        words.append("Marks: finished runs, mean and standard deviation over seeds.")
    return " ".join(words)


def _counts(axes: Axes, x: np.ndarray, found: Wiring, random: np.ndarray | None) -> None:
    whole = [spec.branches for spec in found.modules.values()]
    active = [len(kept) for kept in found.kept.values()]
    axes.bar(x, whole, 0.7, color="white", edgecolor="#8a8a8a", linewidth=0.8, label="all")
    axes.bar(x, active, 0.7, color=style.GREEN, alpha=0.5, label="this run")
    if random is not None:
        mean, std = random.mean(0), random.std(0, ddof=1)
        axes.errorbar(
            x, mean, std, color=style.GREY, fmt="_", markersize=14, capsize=3, label="random inputs"
        )


def _line(axes: Axes, x: np.ndarray, one: groups.Group, number: int, count: int) -> None:
    values = [np.array(v, float) for v in one.active().values()]
    shift = 0.5 * (number - (count - 1) / 2) / max(count, 1)
    runs = len(values[0])
    axes.errorbar(
        x + shift,
        [v.mean() for v in values],
        [v.std(ddof=1) for v in values] if runs > 1 else None,
        color=_COLOURS[number % len(_COLOURS)],
        marker=_MARKERS[number % len(_MARKERS)],
        markersize=5,
        linewidth=1.0,
        capsize=2,
        label=f"{one.title} ({runs} run{'s' if runs > 1 else ''})",
    )


def _parameters(axes: Axes, x: np.ndarray, parts: Sequence[Part]) -> None:
    before, after = zip(*(part.parameters for part in parts), strict=True)
    axes.bar(x, before, 0.7, color="white", edgecolor="#8a8a8a", linewidth=0.8, label="trained")
    axes.bar(x, after, 0.7, color=style.BLUE, alpha=0.85, label="after pruning")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def _table(parts: Sequence[Part], found: Wiring) -> Table:
    rows: list[tuple[Any, ...]] = [
        (part.name, part.branches, part.active, *part.parameters, *part.macs) for part in parts
    ]
    sums = (sum(part.parameters[i] for part in parts) for i in (0, 1))
    macs = (sum(part.macs[i] for part in parts) for i in (0, 1))
    rows.append(("total", found.branches, found.active, *sums, *macs))
    return Table(
        "active_branches",
        "Parts of the network before and after pruning: parameters and multiply-adds (MACs) for an "
        "image.",
        ("part", "branches", "active", "parameters", "after pruning", "MACs", "MACs after"),
        tuple(rows),
    )

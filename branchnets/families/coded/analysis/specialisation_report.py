"""The section on specialisation: Fig. 2a for the paper's block, and for every coded block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from branchnets.families.coded.analysis import parts, specialisation
from branchnets.families.coded.analysis.specialisation import ACTIVE, INACTIVE, Removal
from branchnets.families.study import Subject
from branchnets.report import style
from branchnets.report.content import Figure, Section, Table
from branchnets.report.stats import bootstrap, proportion_interval

if TYPE_CHECKING:
    from branchnets.families.coded.family import CodedFamily

_LOOKS = {ACTIVE: (style.VERMILLION, "o"), INACTIVE: (style.BLUE, "s")}


def section(family: CodedFamily, subject: Subject) -> Section | None:
    """Accuracy under removed branches on the test split; None without coded blocks."""
    if not family.schemes:
        return None
    draws = parts.number_option(subject, "draws", 5, 1)
    removals = {
        block: specialisation.remove(
            family, subject, block, specialisation.measurements(scheme, draws)
        )
        for block, scheme in family.schemes.items()
    }
    main = parts.paper_block(family.model)
    found = {block: changes(removal) for block, removal in removals.items()}
    return Section(
        "Specialisation",
        _text(removals[main], found, draws),
        (_figure(removals[main], draws), _grid(list(removals.values()), draws)),
        (_table(removals),),
        {
            "block": main,
            "intact_accuracy": float(removals[main].intact.mean()),
            "active_all_removed": found[main][ACTIVE][0],
            "inactive_all_removed": found[main][INACTIVE][0],
            "changes": {b: {k: v[0] for k, v in of.items()} for b, of in found.items()},
        },
    )


def changes(removal: Removal) -> dict[str, tuple[float, float, float]]:
    """kind -> change of accuracy when all its branches are removed, and its 95 % interval.

    The interval is a bootstrap over examples of the paired differences.
    """
    found = {}
    for kind in (ACTIVE, INACTIVE):
        difference = removal.all_removed(kind).astype(float) - removal.intact
        found[kind] = (float(difference.mean()), *bootstrap(difference))
    return found


def _text(removal: Removal, found: dict[str, Any], draws: int) -> str:
    n, right = len(removal.intact), int(removal.intact.sum())
    active, inactive = found[removal.block][ACTIVE], found[removal.block][INACTIVE]
    worst = min(found, key=lambda block: found[block][ACTIVE][0])
    hurt = [b for b, of in found.items() if of[ACTIVE][2] < 0]
    harmed = [b for b, of in found.items() if of[INACTIVE][2] < 0]
    helped = [b for b, of in found.items() if of[INACTIVE][1] > 0]
    return (
        f"For every one of the {n:,} test images, k branches of one block are taken out, drawn at "
        "random from those that the code assigns to the image's class (active) or from the others "
        "(inactive); each image has a draw of its own. A branch is zeroed before Eq. 3, "
        "t̄_n = t_n / sqrt(1/N Σ_i E(t_i)), so it counts in no energy and in no sum (footnote 4). "
        f"Each k is measured with {draws} independent draws; where k is all of a kind there is "
        "only one way to draw.\n\n"
        f"With nothing removed, {parts.percent(removal.intact.mean())} of the images are right "
        f"({parts.between(proportion_interval(right, n))}). Removing all active branches of "
        f"{removal.block}, the block of the paper's Fig. 2a, changes that by "
        f"{parts.points(active[0])} ({parts.between(active[1:])}); removing all inactive ones by "
        f"{parts.points(inactive[0])} ({parts.between(inactive[1:])}). "
        f"{_verdict(active, inactive)}\n\n"
        f"Over all {len(found)} coded blocks, removing the active branches costs accuracy beyond "
        f"the sampling error in {len(hurt)} (most in {worst}: "
        f"{parts.points(found[worst][ACTIVE][0])}); removing the inactive ones costs accuracy in "
        f"{len(harmed)}{_named(harmed)} and raises it in {len(helped)}{_named(helped)}. The class "
        "must be known to remove its inactive branches, so a gain here is none in practice."
    )


def _verdict(active: tuple[float, ...], inactive: tuple[float, ...]) -> str:
    if active[2] >= 0:
        first = "So the active branches of this block do not show to be needed"
        reason = (
            "; information also passes through the shortcut and through the other blocks, as the "
            "paper remarks."
        )
        return first + reason
    first = "So the active branches of this block are needed"
    if inactive[1] > 0:
        return first + ", and the inactive ones disturb, as the paper found."
    if inactive[2] < 0:
        return (
            f"{first}, but the inactive ones are not idle either: removing them costs "
            f"{100 * -inactive[0]:.1f} points here. The paper's accuracy tends to rise instead."
        )
    return (
        f"{first} and the inactive ones are not: what their removal changes is within the "
        "sampling error. The paper's accuracy tends to rise; that does not show here."
    )


def _named(blocks: list[str]) -> str:
    return f" ({', '.join(blocks)})" if blocks else ""


def _draw(axes: Any, removal: Removal, draws: int) -> None:
    for kind, (colour, marker) in _LOOKS.items():
        ks, mean, spread = removal.curve(kind)
        axes.errorbar(
            ks, 100 * mean, 100 * spread, color=colour, marker=marker, markersize=4, capsize=3,
            label=f"{kind} branches removed",
        )  # fmt: skip
        axes.fill_between(ks, 100 * (mean - spread), 100 * (mean + spread), color=colour, alpha=0.2)
    axes.axhline(100 * removal.intact.mean(), color=style.GREY, linewidth=1, linestyle=":")
    axes.xaxis.get_major_locator().set_params(integer=True)


def _figure(removal: Removal, draws: int) -> Figure:
    drawing, axes = style.figure()
    _draw(axes, removal, draws)
    style.label(axes, "removed branches k", "test accuracy (%)", f"Block {removal.block}")
    style.legend(axes)
    return Figure(
        "fig2a_specialisation",
        f"Accuracy on {len(removal.intact):,} test images when k random active or inactive "
        f"branches of {removal.block} are removed: mean and standard deviation of {draws} draws. "
        "Dotted: nothing removed. Counterpart of the paper's Fig. 2a, which prints no numbers.",
        drawing,
    )


def _grid(removals: list[Removal], draws: int) -> Figure:
    columns = min(3, len(removals)) if len(removals) != 4 else 2
    rows = -(-len(removals) // columns)
    drawing, axes = style.figure(
        3.2 * columns + 0.6, 2.6 * rows + 0.4, rows, columns, squeeze=False, sharey=True
    )
    flat = axes.reshape(-1)
    for i, panel in enumerate(flat):
        if i >= len(removals):
            panel.set_visible(False)
            continue
        _draw(panel, removals[i], draws)
        y = "test accuracy (%)" if i % columns == 0 else ""
        style.label(panel, "removed branches k", y, removals[i].block)
    style.legend(flat[0])
    return Figure(
        "fig2a_all_blocks",
        "The same for every coded block, from input to output; one scale for all.",
        drawing,
    )


def _table(removals: dict[str, Removal]) -> Table:
    rows = []
    for block, removal in removals.items():
        for kind in (ACTIVE, INACTIVE):
            for k, mean, spread in zip(*removal.curve(kind), strict=True):
                cells = np.array([a == kind for a in removal.kinds]) & (removal.removed == k)
                low, high = proportion_interval(
                    round(mean * len(removal.intact)), len(removal.intact)
                )
                several = int(cells.sum()) > 1
                rows.append(
                    (block, kind, int(k), float(mean), float(spread) if several else None,
                     max(int(cells.sum()), 1), low, high)
                )  # fmt: skip
    return Table(
        "fig2a_specialisation",
        "Test accuracy when k branches of one block are removed: mean and standard deviation over "
        "draws, and Wilson's 95 % interval of the mean for so many images.",
        ("block", "kind", "k", "accuracy", "std over draws", "draws", "from", "to"),
        tuple(rows),
    )

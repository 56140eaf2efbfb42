"""The section on connectivity: the diagram, and every connection as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from branchnets.families.maskconnect.analysis import draw
from branchnets.families.maskconnect.analysis.scene import layout
from branchnets.families.maskconnect.analysis.wiring import (
    STATES,
    Wiring,
    everything,
    title,
    wiring,
)
from branchnets.families.study import Subject
from branchnets.report.content import Figure, Section, Table

if TYPE_CHECKING:
    from branchnets.families.maskconnect.family import MaskConnectFamily

#: Up to so many branches a module, the full connectivity can be read and is drawn beside.
BESIDE = 16


def section(family: MaskConnectFamily, subject: Subject) -> Section | None:
    """The diagram of a network; None for a true ResNeXt, whose branches have no connections."""
    found = wiring(family, subject.variables)
    if found is None:
        return None
    tables = () if found.state == "real" else (_table(found),)
    return Section(
        "Connectivity",
        _text(family, found),
        (_figure(family, found),),
        tables,
        {
            "state": found.state,
            "branches": found.branches,
            "active_branches": found.active,
            "connections": int(sum((w > 0).sum() for w in found.weights.values())),
        },
    )


def _text(family: MaskConnectFamily, found: Wiring) -> str:
    share = found.active / found.branches
    return (
        f"{title(family)}. {STATES[found.state]}\n\n"
        f"Of {found.branches} branches {found.active} ({share:.0%}) reach the output. "
        f"{_rest(found)}".strip()
    )


def _rest(found: Wiring) -> str:
    """What that means for the branches that do not."""
    if found.active == found.branches:
        return "None can be taken out."
    if found.state == "learning":
        return "That can change while masks are learned, so nothing can be taken out yet."
    if found.state == "real":
        return "The others have no weight that is not zero on any way to it."
    return (
        "The others are read by nobody, or only by branches that do not reach it either. They can "
        "be taken out and the network computes the same: tools.slim does it."
    )


def _figure(family: MaskConnectFamily, found: Wiring) -> Figure:
    own = title(family)
    scenes = {own: layout(found)}
    prefix = {own: "branch"}
    if scenes[own].width <= BESIDE and family.connectivity != "ones":
        full = "ResNeXt: every branch reads all"
        scenes = {full: layout(everything(found.modules)), **scenes}
        prefix[full] = "full"
    words = [
        "Rows are modules and squares their branches, from the stem (upper circle) down to the "
        "classifier (lower circle); lines lead from a branch to those that read it."
    ]
    if found.state == "real":
        words.append("The stronger a line, the larger its mask.")
    if found.active < found.branches:
        few = scenes[own].width <= draw.MANY
        edges = "faint lines lead into them" if few else "what they read is left out"
        words.append(f"Hollow ones reach nobody and can be pruned; {edges}.")
    if len(scenes) > 1:
        words.append("Beside it the full connectivity of a ResNeXt with the same modules.")
    return Figure(
        "fig3_connectivity",
        " ".join(words),
        draw.draw(scenes, prefix),
        svg=True,
    )


def _table(found: Wiring) -> Table:
    names = list(found.modules)
    rows: list[tuple[Any, ...]] = []
    for name, after in zip(names, [*names[1:], None], strict=True):
        for j in range(found.modules[name].branches):
            reads = "stem"
            if name in found.weights:
                reads = " ".join(map(str, np.flatnonzero(found.weights[name][j])))
            readers = None if after is None else int((found.weights[after][:, j] > 0).sum())
            alive = "yes" if j in found.kept[name] else "no"
            rows.append((name, j, reads, readers, alive))
    return Table(
        "connections",
        "Every branch: the branches of the module before that it reads, how many branches of the "
        "next module read it (– before the head, which sums all), and whether it reaches the "
        "output.",
        ("module", "branch", "reads", "read by", "reaches the output"),
        tuple(rows),
    )

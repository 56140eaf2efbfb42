"""What a MaskConnect network is looked at for (section 3 and appendices B to D of the paper).

One file an analysis; a file that computes knows nothing of figures.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from branchnets.families.study import Analysis, Subject
from branchnets.report.content import Section

if TYPE_CHECKING:
    from branchnets.families.maskconnect.family import MaskConnectFamily


def analyses(family: MaskConnectFamily) -> dict[str, Analysis]:
    """The sections of a report, by short name."""

    def analysis(title: str, module: str) -> Analysis:
        return Analysis(title, functools.partial(_run, module, family))

    return {
        "connectivity": analysis("Connectivity", "diagram"),
        "branches": analysis("Active branches", "depth_report"),
        "evolution": analysis("Evolution of the masks", "evolution_report"),
        "comparison": analysis("Runs compared", "comparison"),
    }


def _run(module: str, family: MaskConnectFamily, subject: Subject) -> Section | None:
    """Imported when it runs: drawing needs matplotlib, the rest of the package does not."""
    section: Callable[[MaskConnectFamily, Subject], Section | None]
    section = importlib.import_module(f"{__name__}.{module}").section
    return section(family, subject)

"""What a trained Coded ResNeXt is looked at for (sections 4.2 to 4.4, appendices B and C).

One file an analysis; a file that computes knows nothing of figures.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from branchnets.families.coded import negatives
from branchnets.families.study import Analysis, Option, Subject
from branchnets.report.content import Section

if TYPE_CHECKING:
    from branchnets.families.coded.family import CodedFamily

_DRAWS = Option(
    "draws", 5, "random subsets of branches to remove for each number of them (Fig. 2a)"
)
_STEPS = Option("timing_steps", 5, "steps to time for Table 4; 0 leaves throughput out")
_BATCH = Option("timing_batch", 0, "images of a timed step; 0: 32 on CPUs, else the training batch")


def analyses(family: CodedFamily) -> dict[str, Analysis]:
    """The sections of a report, by short name."""

    def analysis(title: str, module: str, *options: Option) -> Analysis:
        return Analysis(title, functools.partial(_run, module, family), options)

    return {
        "energies": analysis("Energies", "energies"),
        "specialisation": analysis("Specialisation", "specialisation_report", _DRAWS),
        "binary": analysis("Binary classifiers", "classifier_report", negatives.OPTION),
        "early": analysis("Early decoding", "early_report"),
        "tolerance": analysis("What the code tolerates", "tolerance", _DRAWS),
        "cost": analysis("Costs", "cost", _STEPS, _BATCH),
    }


def merits(family: CodedFamily, subject: Subject) -> dict[str, float]:
    """See :func:`branchnets.families.coded.analysis.merit.merits`."""
    module = importlib.import_module(f"{__name__}.merit")
    return module.merits(family, subject)


def _run(module: str, family: CodedFamily, subject: Subject) -> Section | None:
    """Imported when it runs: drawing needs matplotlib, the rest of the package does not."""
    section: Callable[[CodedFamily, Subject], Section | None]
    section = importlib.import_module(f"{__name__}.{module}").section
    return section(family, subject)

"""What a trained Coded ResNeXt is looked at for (sections 4.2 to 4.4, appendices B and C).

One file an analysis; a file that computes knows nothing of figures.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from branchnets.families.coded import negatives
from branchnets.families.coded.analysis import parts
from branchnets.families.study import Analysis, Option, Subject
from branchnets.report.content import Section

if TYPE_CHECKING:
    from branchnets.families.coded.family import CodedFamily


def _number(name: str, default: int, help: str, minimum: int) -> Option:
    def check(value: Any) -> None:
        parts.whole_number(name, value, minimum)

    return Option(name, default, help, check=check)


_DRAWS = _number(
    "draws", 5, "random subsets of branches to remove for each number of them (Fig. 2a)", 1
)
_STEPS = _number("timing_steps", 5, "steps to time for Table 4; 0 leaves throughput out", 0)
_BATCH = _number(
    "timing_batch", 0, "images of a timed step; 0: 32 on CPUs, else the training batch", 0
)


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

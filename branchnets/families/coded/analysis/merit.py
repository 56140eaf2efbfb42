"""Figures of a finished run for sweeps (Figs. 5 and 6): one number each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from branchnets.families.coded.analysis import classifiers, early, parts, specialisation
from branchnets.families.coded.analysis.specialisation import ACTIVE, INACTIVE
from branchnets.families.study import Subject

if TYPE_CHECKING:
    from branchnets.families.coded.family import CodedFamily


def merits(family: CodedFamily, subject: Subject) -> dict[str, float]:
    """Binary classifiers, early decoding and specialisation on the test split.

    Returns:
      "binary/f1", "binary/precision", "binary/recall", "binary/average_precision": means over
      classes, thresholds from the training split, left out if no class has examples in both;
      "early/BLOCK" and "early/last": accuracy of the early decoders; "specialisation/active" and
      "specialisation/inactive": change of accuracy when all such branches of the block of Fig. 2a
      are removed.  Empty without coded blocks.
    """
    if not family.schemes:
        return {}
    found = {}
    if len(classifiers.classes_to_judge(subject)):
        judged = classifiers.measure(family, subject, outside=False).inside
        found = {f"binary/{name}": value for name, value in classifiers.means(judged).items()}
    decoded = early.decode(family, subject)
    accuracies = decoded.right.mean(0)
    found |= {f"early/{b}": float(a) for b, a in zip(family.schemes, accuracies, strict=False)}
    found["early/last"] = float(accuracies[len(family.schemes) - 1])
    block = parts.paper_block(family.model)
    scheme = family.schemes[block]
    cells = [(ACTIVE, scheme.active, 0), (INACTIVE, scheme.branches - scheme.active, 0)]
    removal = specialisation.remove(family, subject, block, cells)
    for kind in (ACTIVE, INACTIVE):
        change = removal.all_removed(kind).mean() - removal.intact.mean()
        found[f"specialisation/{kind}"] = float(change)
    return found

"""What a step costs against the same step of another config."""

from __future__ import annotations

from collections.abc import Sequence

from branchnets.aot.cost import Cost
from branchnets.engine.records.logging import format_table

#: What is compared: of :class:`Cost`, with the words of the table.
COMPARED = {
    "temp_bytes": "activations and workspace",
    "peak_bytes": "peak",
    "total_flops": "FLOPs",
    "flops": "FLOPs, loops once",
    "total_bytes": "bytes moved",
    "bytes_accessed": "bytes moved, loops once",
    "total_compiler_seconds": "compiler's estimate",
    "compiler_seconds": "compiler's estimate, loops once",
}


def ratios(one: Cost, other: Cost) -> dict[str, float | None]:
    """A step's figures over those of another; None where one has none, as if it does not fit."""
    pairs = {name: (getattr(one, name), getattr(other, name)) for name in COMPARED}
    return {name: own / its if own and its else None for name, (own, its) in pairs.items()}


def partner(one: Cost, others: Sequence[Cost]) -> Cost | None:
    """The same step of the other config; of several modes the one of the same name, if any."""
    named = [other for other in others if other.step == one.step]
    kind = one.step.partition(":")[0]
    alike = named or [other for other in others if other.step.partition(":")[0] == kind]
    return alike[0] if len(alike) == 1 else None


def table(found: Sequence[Cost], others: Sequence[Cost], name: str) -> str:
    """The ratios of each step that has a partner.

    Args:
      found: steps.
      others: those of the other config, on the same topology.
      name: of the other config.
    """
    pairs = [(one, other) for one in found if (other := partner(one, others)) is not None]
    columns = [ratios(one, other) for one, other in pairs]
    rows = [
        (words, *("-" if own[field] is None else f"{own[field]:.3f}" for own in columns))
        for field, words in COMPARED.items()
    ]
    return format_table(rows, (f"over {name}", *(one.step for one, _ in pairs)))

"""What a step costs against the same step of another config."""

from __future__ import annotations

from collections.abc import Sequence

from branchnets.aot.cost import Cost
from branchnets.aot.tables import WORDS
from branchnets.engine.records.logging import format_table


def ratios(one: Cost, other: Cost) -> dict[str, float | None]:
    """A step's figures over those of another, by the names of :data:`branchnets.aot.tables.WORDS`.

    None where one has none, as if it does not fit; likewise of totals that are lower bounds.
    """
    return {name: _ratio(name, one, other) for name in WORDS}


def _ratio(name: str, one: Cost, other: Cost) -> float | None:
    own, its = getattr(one, name), getattr(other, name)
    bounds = name.startswith("total_") and (one.unknown_loops or other.unknown_loops)
    return own / its if own and its and not bounds else None


def partner(one: Cost, others: Sequence[Cost]) -> Cost | None:
    """The same step of the other config; of several modes the one of the same name, if any."""
    named = [other for other in others if other.step == one.step]
    kind = one.step.partition(":")[0]
    alike = named or [other for other in others if other.step.partition(":")[0] == kind]
    return alike[0] if len(alike) == 1 else None


def table(found: Sequence[Cost], others: Sequence[Cost], name: str) -> str:
    """The ratios of each step that has a partner, and which steps have none.

    Args:
      found: steps.
      others: those of the other config, on the same topology.
      name: of the other config.
    """
    columns = {
        one.step: ratios(one, other) for one in found if (other := partner(one, others)) is not None
    }
    rows = [
        (words, *("-" if own[field] is None else f"{own[field]:.3f}" for own in columns.values()))
        for field, words in WORDS.items()
    ]
    text = [format_table(rows, (f"over {name}", *columns))] if columns else []
    alone = [one.step for one in found if one.step not in columns]
    text += [f"{step}: {name} has no step, or several, to compare it with." for step in alone]
    return "\n".join(text)

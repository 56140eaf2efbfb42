"""What the paper varies: its names of the fields, the values, what they gave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from branchnets.families.maskconnect.paper import TABLES, Printed, Row
from branchnets.families.study import Panel, Reference

#: The paper's name -> path of the config field.
ALIASES: Mapping[str, str] = {
    "k": "model.fan_in",
    "connectivity": "model.connectivity",
    "aggregate": "model.aggregate",
    "mask_learning_rate": "maskconnect.mask_learning_rate",
}

#: Fig. 2 (of networks with C = 8), the connectivities of Table 1 with the real-valued masks of 3.1
#: and Eq. 2 with all masks one, and the sum of Eq. 2 against the mean.
SWEEPS: Mapping[str, tuple[Any, ...]] = {
    "k": (1, 2, 3, 4, 5, 6, 7, 8),
    "connectivity": ("learned", "random", "full", "real", "ones"),
    "aggregate": ("sum", "mean"),
}

FIGURES: Mapping[str, str] = {"k": "fig2_fan_in"}

PANELS = (
    Panel("Whole network", "test accuracy", ("test_accuracy",), percent=True),
    Panel("Branches that reach the output", "share of all", ("active_share",), percent=True),
    Panel("After pruning", "parameters", ("parameters_after_pruning",)),
)


def _references(table: Printed, row: Row) -> Iterator[Reference]:
    """A row as references; of several trainings the mean, which is what a sweep draws."""
    fields = {"model.connectivity": row.connectivity}
    # Fixed-Full has every input, whatever K says: a baseline beside every point.
    own = {} if row.connectivity == "full" else {**fields, "model.fan_in": row.fan_in}
    text = "paper's ResNeXt" if row.connectivity == "full" else "paper"

    def reference(figure: str, value: float) -> Reference:
        return Reference(row.model, table.dataset, figure, value, own, text)

    top1 = row.top1.best if row.top1.mean is None else row.top1.mean
    yield reference("test_accuracy", round(top1 / 100, 6))
    if row.test is not None and own:
        yield reference("parameters_after_pruning", row.test * 1e6)


#: Tables 1 to 4. Fig. 2 prints no numbers.
REFERENCES = tuple(
    reference for table in TABLES for row in table.rows for reference in _references(table, row)
)

"""The phases of a run as a config gives them: pairs of a mode and its epochs."""

from __future__ import annotations

from typing import Any

from branchnets.errors import ConfigError, unknown

#: What a phase can do: learn masks and weights, or tune the weights with frozen masks.
MODES = ("learn", "tune")


def read_plan(phases: Any) -> tuple[tuple[str, float], ...]:
    """(mode, epochs) of every phase; raises ConfigError where there are no such pairs."""
    try:
        plan = tuple((str(mode), float(epochs)) for mode, epochs in phases)
        if not plan:
            raise ValueError("empty")
        return plan
    except (TypeError, ValueError):
        raise ConfigError(
            f"maskconnect.phases is {phases!r}; it takes pairs of a mode and a number of epochs, "
            "such as (('learn', 4.0), ('tune', 6.0))"
        ) from None


def check_plan(plan: tuple[tuple[str, float], ...], epochs: int) -> None:
    """Refuses phases of another kind, length or sum than the run can have."""
    for mode, length in plan:
        if mode not in MODES:
            raise unknown("phase of maskconnect.phases", mode, MODES)
        if not length > 0:  # not a number neither
            raise ConfigError(f"maskconnect.phases: {mode} lasts {length} epochs; give more than 0")
    total = sum(length for _, length in plan)
    if abs(total - epochs) > 1e-6:
        parts = "".join(f"({mode!r},{length * epochs / total:.9g})," for mode, length in plan)
        raise ConfigError(
            f"maskconnect.phases add up to {total:g} epochs, the run has {epochs}; make them "
            f'agree, in proportion by --config.maskconnect.phases="({parts})", and look at '
            "schedule.milestones"
        )
    modes = [mode for mode, _ in plan]
    if "learn" in modes[modes.index("tune") if "tune" in modes else len(modes) :]:
        raise ConfigError(
            "maskconnect.phases: a phase that learns the masks cannot follow one that has frozen "
            "them"
        )

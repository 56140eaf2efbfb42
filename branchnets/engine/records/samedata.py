"""Whether a run that goes on is given the training data that it was started on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def other_data(saved: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """How two runs' training data differ, or "".

    Args:
      saved: what was derived from the config of the run, as config.json has it; what it does not
        say is not compared.
      given: what is derived now.
    """
    old, new = saved.get("data", {}), given.get("data", {})
    names, own = (list(data.get("class_names", ())) for data in (old, new))
    if names and own and names != own:
        return f"its classes were {_some(names)}, and now are {_some(own)}"
    shape, its = (tuple(data.get("image_shape", ())) for data in (old, new))
    if shape and its and shape != its:
        return f"the shape of its images was {shape}, and now is {its}"
    before, now = (data.get("train") for data in (old, new))
    if not before or not now or before == now:
        return _other_steps(saved, given)
    was, is_ = (f"{data['examples']:,} ({data['form']})" for data in (before, now))
    if was == is_:
        return f"there are {was} as before, but others or in another order"
    return f"there were {was}, and now are {is_}"


def _other_steps(saved: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Of data that cannot be told apart otherwise, or of another version of this program."""
    for name, what in (("steps_per_epoch", "an epoch"), ("total_steps", "the run")):
        before, now = saved.get(name), given.get(name)
        if before and now and before != now:
            return f"{what} had {before:,} steps, and now has {now:,}"
    return ""


def _some(names: list[str]) -> str:
    more = ", ..." if len(names) > 4 else ""
    return f"{len(names)} ({', '.join(names[:4])}{more})"

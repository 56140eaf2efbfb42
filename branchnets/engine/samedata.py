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
    before, now = (data.get("train") for data in (old, new))
    if not before or not now or before == now:
        return ""
    was, is_ = (f"{data['examples']:,} ({data['form']})" for data in (before, now))
    if was == is_:
        return f"there are {was} as before, but others or in another order"
    return f"there were {was}, and now are {is_}"


def _some(names: list[str]) -> str:
    more = ", ..." if len(names) > 4 else ""
    return f"{len(names)} ({', '.join(names[:4])}{more})"

"""What finished runs say: their figures, and mean ± standard deviation over seeds."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from branchnets.errors import StorageError, UserError
from branchnets.storage import AnyPath

DASH = "–"
MERITS = "merits.json"
_SUMMARY = "summary.json"


def load(folder: AnyPath) -> tuple[dict[str, Any], dict[str, Any]]:
    """(config, figures) of a finished run; figures are the numbers of summary.json by path.

    Raises:
      UserError: the run is not finished, or is no run.
    """
    try:
        config = json.loads((folder / "config.json").read_text())["raw"]
        summary = json.loads((folder / _SUMMARY).read_text())
    except FileNotFoundError as error:
        raise UserError(
            f"{folder} is no finished run: {Path(error.filename).name} is missing."
        ) from None
    summary["commit"] = summary["environment"]["source"].get("commit") or DASH
    del summary["environment"]
    return config, flatten(summary)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a/b": value} of nested dictionaries: texts and numbers."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        flat |= flatten(value, f"{path}/") if isinstance(value, Mapping) else {path: value}
    return flat


def finished(folder: AnyPath) -> bool:
    """Whether the run there is at its end."""
    return (folder / _SUMMARY).is_file()


def has_merits(folder: AnyPath) -> bool:
    """Whether the merits there are those of the finished run."""
    try:
        merits = json.loads((folder / MERITS).read_text())
        return merits["step"] == json.loads((folder / _SUMMARY).read_text())["steps"]
    except StorageError:
        raise  # a service fails, which does not say that there are none
    except (OSError, ValueError, LookupError):
        return False


def merits(folder: AnyPath) -> dict[str, float]:
    """The merits of a finished run; none where they are not there."""
    if not has_merits(folder):
        return {}
    return flatten(json.loads((folder / MERITS).read_text())["merits"])


def cell(values: Sequence[float]) -> str:
    """ "mean ± sample standard deviation", the value itself if there is one, or a dash."""
    if not values:
        return DASH
    mean = statistics.fmean(values)
    if len(values) == 1:
        return f"{mean:.4f}"
    return f"{mean:.4f} ± {statistics.stdev(values):.4f}"


def markdown(headers: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [headers, ["---"] * len(headers), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

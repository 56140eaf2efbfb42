"""Finished runs that differ in the seed alone, summed up as the paper's tables do."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from branchnets.families.maskconnect.zoo import BUILDERS, Builder
from branchnets.families.study import FinishedRun

#: Fields of a config that do not change what a run finds, or that are averaged over.
ASIDE = ("seed", "data.data_dir", "log.", "checkpoint.", "eval.")

#: Fields of ``model`` that make a registered network another one.
SIZES = ("depths", "branches", "width", "channels", "stem_channels", "head_bias", "bn_momentum")


@dataclasses.dataclass(frozen=True)
class Spread:
    """A figure over several runs: best, mean, sample standard deviation (None of one run)."""

    best: float
    mean: float
    std: float | None
    runs: int

    def text(self, scale: float = 1.0) -> str:
        """As the paper prints it, ``75.89 (75.77 ± 0.12)``; the number alone of one run."""
        best = f"{scale * self.best:.2f}"
        if self.std is None:
            return best
        return f"{best} ({scale * self.mean:.2f} ± {scale * self.std:.2f})"


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs of one config but for the seed.

    Attributes:
      config: dotted path -> value, of the first.
      runs: at least one.
    """

    config: Mapping[str, Any]
    runs: tuple[FinishedRun, ...]

    @property
    def ours(self) -> bool:
        """Whether they are of this family."""
        return self.config.get("family") == "maskconnect" and self.model in BUILDERS

    @property
    def model(self) -> str:
        """Name of the network."""
        return str(self.config["model.name"])

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return str(self.config["data.name"])

    @property
    def seeds(self) -> tuple[int, ...]:
        """In order."""
        return tuple(sorted(run.config["seed"] for run in self.runs))

    @property
    def connectivity(self) -> str | None:
        """Of this family's networks."""
        return str(self.config["model.connectivity"]) if self.ours else None

    @property
    def aggregate(self) -> str | None:
        """``"sum"`` or ``"mean"``; None for a true ResNeXt and other families."""
        if not self.ours or self.connectivity == "full":
            return None
        return str(self.config["model.aggregate"])

    @property
    def sizes(self) -> Builder | None:
        """What the network is built from."""
        if not self.ours:
            return None
        own = {f.name: self.config.get(f"model.{f.name}") for f in dataclasses.fields(Builder)}
        return dataclasses.replace(
            BUILDERS[self.model], **{k: v for k, v in own.items() if v is not None}
        )

    @property
    def architecture(self) -> str | None:
        """``{29,8,8}``: depth, width, cardinality."""
        sizes = self.sizes
        return None if sizes is None else sizes.architecture

    @property
    def fan_in(self) -> int | None:
        """K; None of real-valued masks, which have none."""
        sizes = self.sizes
        if sizes is None or self.connectivity == "real":
            return None
        return sizes.branches if self.connectivity in ("full", "ones") else sizes.fan_in

    @property
    def whole(self) -> bool:
        """Whether it is a registered network, trained on all of a data set as it is."""
        changed = [f"model.{name}" for name in SIZES]
        changed += ["data.train_size", "data.validation_size"]
        changed += ["data.image_size", "data.pad_to", "data.channels"]
        own_labels = self.config.get("data.label") != "coarse"
        return own_labels and all(self.config.get(path) is None for path in changed)

    def figures(self, name: str) -> list[float]:
        """A figure of every run that has it."""
        found = [run.figures.get(name) for run in self.runs]
        return [float(v) for v in found if isinstance(v, int | float)]

    def spread(self, name: str) -> Spread | None:
        """A figure over the runs; None where no run has it."""
        values = self.figures(name)
        if not values:
            return None
        std = statistics.stdev(values) if len(values) > 1 else None
        return Spread(max(values), statistics.fmean(values), std, len(values))

    def mean(self, name: str) -> float | None:
        """Mean of a figure; None where no run has it."""
        values = self.figures(name)
        return statistics.fmean(values) if values else None

    @property
    def parameters_after(self) -> float | None:
        """Mean parameters after pruning; where nothing can be pruned, those before."""
        if self.ours and self.connectivity in ("full", "real"):
            return self.mean("parameters")
        return self.mean("parameters_after_pruning")

    def active(self) -> dict[str, list[int]]:
        """Module name -> branches that reach the output, in every run that says so."""
        found: dict[str, list[int]] = {}
        for run in self.runs:
            for name, value in run.figures.items():
                if name.startswith("active_branches/"):
                    found.setdefault(name.removeprefix("active_branches/"), []).append(int(value))
        return dict(sorted(found.items(), key=lambda item: _place(item[0])))

    @property
    def title(self) -> str:
        """``learned, K = 4, mean``."""
        if not self.ours:
            return self.model
        parts = [str(self.connectivity)]
        parts += [f"K = {self.fan_in}"] if self.fan_in and self.connectivity != "full" else []
        parts += [self.aggregate] if self.aggregate else []
        return ", ".join(parts)


def group(runs: Iterable[FinishedRun]) -> tuple[Group, ...]:
    """Runs by their config without :data:`ASIDE`, in the order in which they come.

    Two runs of one config and one seed are one run again; the first counts.
    """
    found: dict[str, dict[int, FinishedRun]] = {}
    for run in runs:
        found.setdefault(_key(run.config), {}).setdefault(run.config["seed"], run)
    return tuple(
        Group(next(iter(by_seed.values())).config, tuple(by_seed.values()))
        for by_seed in found.values()
    )


def differing(groups: Iterable[Group], shown: Iterable[str]) -> list[str]:
    """Fields in which groups differ, but for those that have a column of their own."""
    groups, hidden = list(groups), set(shown)
    paths = dict.fromkeys(path for one in groups for path in one.config)
    return [
        path
        for path in paths
        if path not in hidden
        and not path.startswith(ASIDE)
        and len({json.dumps(one.config.get(path)) for one in groups}) > 1
    ]


def _key(config: Mapping[str, Any]) -> str:
    kept = {path: value for path, value in config.items() if not path.startswith(ASIDE)}
    return json.dumps(kept, sort_keys=True)


def _place(module: str) -> tuple[int, ...]:
    """Where a module stands: ``stage2/block10`` -> (2, 10)."""
    return tuple(int(part.strip("stageblock")) for part in module.split("/"))

"""The connections of a trained network, in whatever state its masks are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from branchnets.families.maskconnect import connectivity, masks
from branchnets.families.maskconnect.model import MaskConnectNet, ModuleSpec, fixed

if TYPE_CHECKING:
    from branchnets.families.maskconnect.family import MaskConnectFamily

#: The states that masks can be in, as sentences of a report.
STATES = {
    "frozen": "The masks are frozen: these connections are the network's.",
    "learning": (
        "The masks are still being learned at this checkpoint, so nothing is settled. Shown are "
        "their K largest entries, which evaluation uses too."
    ),
    "fixed": "These connections were fixed before training and have not been learned.",
    "real": (
        "The masks are real-valued (the variant that section 3.1 of the paper rejects), so every "
        "branch reads every branch whose weight is above zero, and none can be pruned."
    ),
}


@dataclasses.dataclass(frozen=True)
class Wiring:
    """Who reads whom.

    Attributes:
      modules: in order from input to output.
      weights: module name -> [N, N before], of every module but the first: 0 and 1, or real masks.
      kept: module name -> indices of the branches that reach the output.
      state: a key of :data:`STATES`.
    """

    modules: Mapping[str, ModuleSpec]
    weights: Mapping[str, np.ndarray]
    kept: Mapping[str, np.ndarray]
    state: str

    @property
    def branches(self) -> int:
        """Branches of all modules."""
        return sum(spec.branches for spec in self.modules.values())

    @property
    def active(self) -> int:
        """Those that reach the output."""
        return sum(map(len, self.kept.values()))


def wiring(family: MaskConnectFamily, variables: Mapping[str, Any]) -> Wiring | None:
    """The connections that evaluation uses; None for a true ResNeXt, which has no masks."""
    if not isinstance(family.model, MaskConnectNet):
        return None
    modules = family.model.modules()
    stored = jax.device_get(variables.get("masks", {}))
    weights: dict[str, np.ndarray] = {}
    for name, spec, before in family.model.readers():
        if spec.connections is not None:
            weights[name] = np.asarray(fixed(spec.connections, spec.branches, before, name))
        elif family.connectivity == "real":
            weights[name] = np.asarray(stored[name], np.float32)
        else:
            weights[name] = np.asarray(masks.top(stored[name], family.model.fan_in))
    kept = connectivity.alive(modules, weights)
    return Wiring(modules, weights, kept, _state(family, stored))


def _state(family: MaskConnectFamily, stored: Mapping[str, np.ndarray]) -> str:
    if family.connectivity == "real":
        return "real"
    if family.connectivity != "learned":
        return "fixed"
    fan_in = family.model.fan_in
    settled = all(connectivity.is_frozen(mask, fan_in) for mask in stored.values())
    return "frozen" if settled else "learning"


def everything(modules: Mapping[str, ModuleSpec]) -> Wiring:
    """The full connectivity of a ResNeXt with these modules: every branch reads all."""
    names = list(modules)
    weights = {
        name: np.ones((modules[name].branches, modules[before].branches), np.float32)
        for before, name in zip(names, names[1:], strict=False)
    }
    kept = {name: np.arange(spec.branches) for name, spec in modules.items()}
    return Wiring(modules, weights, kept, "fixed")


def title(family: MaskConnectFamily) -> str:
    """What connectivity a network has, as the paper names it: ``Learned, K = 4``."""
    kind = family.connectivity
    if kind == "full":
        return "Fixed-Full (ResNeXt)"
    if kind == "ones":
        return "Fixed, every branch reads all"
    if kind == "real":
        return "Real-valued masks"
    return f"{'Learned' if kind == 'learned' else 'Fixed-Random'}, K = {family.model.fan_in}"

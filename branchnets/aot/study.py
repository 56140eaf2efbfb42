"""Configs on topologies: what fits, and what must stay the same however many devices there are."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax.numpy as jnp
from ml_collections import ConfigDict

from branchnets.aot import fits, topologies
from branchnets.aot.collectives import moved
from branchnets.aot.cost import Cost, cost
from branchnets.aot.steps import steps
from branchnets.aot.topologies import Topology
from branchnets.engine import config as configs

#: How far FLOPs and bytes of a device may differ between numbers of devices.
TOLERANCE = 0.01
#: What all-reduces may carry, of the parameters' bytes in the compute type.
GRADIENTS = (0.95, 1.15)
#: All-reduces of a training step whose statistics stay on their devices.
MOST_ALL_REDUCES = 4
_UNKNOWN = "some loops count once"


def costs(
    config: ConfigDict,
    topology: Topology,
    *,
    only: str | None = None,
    search: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[Cost]:
    """Compiles the steps of a config for a topology.

    Args:
      config: overrides included.
      topology: to compile for.
      only: "train" or "eval"; None is both.
      search: whether to look for the largest batch where a step does not fit.
      say: told what is being done.

    Raises:
      UserError: a config that cannot run there.
    """
    for step in steps(config, list(topology.devices)):
        if only is not None and step.name.partition(":")[0] != only:
            continue
        say(f"compiling {step.name} for {topology.name}, {step.batch_size} examples ...")
        found = cost(step, topology)
        if not found.fits and search:
            least = fits.unit(config, found.devices, train=step.name.startswith("train"))
            most = _largest(config, topology, found, least, say)
            found = dataclasses.replace(found, largest_batch=most, smallest_batch=least)
        yield found


def _largest(
    config: ConfigDict, topology: Topology, found: Cost, least: int, say: Callable[[str], None]
) -> int:
    """The largest lawful batch, a multiple of `least`, of a step that does not fit as it is."""
    train = found.step.startswith("train")

    def enough(batch_size: int) -> bool:
        changed = with_batch(config, batch_size, train)
        (step,) = (s for s in steps(changed, list(topology.devices)) if s.name == found.step)
        say(f"compiling {step.name} for {topology.name}, {batch_size} examples ...")
        return cost(step, topology).fits

    used = found.needed_bytes or found.peak_bytes
    guess = int(found.batch_size * found.usable_bytes / used) if used else None
    return fits.largest(enough, least, found.batch_size, guess)


def with_batch(config: ConfigDict, batch_size: int, train: bool = True) -> ConfigDict:
    """The config with another batch size, in training or in evaluation."""
    changed = copy.deepcopy(config)
    if train:
        changed.batch_size = batch_size
    else:
        changed.eval.batch_size = batch_size
    return changed


def sweep(
    config: ConfigDict,
    generations: Sequence[str],
    per_device: int,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[Cost]:
    """Compiles the training step for growing numbers of devices, the batch of each the same.

    Args:
      config: overrides included.
      generations: of :data:`branchnets.aot.topologies.SWEEPS`.
      per_device: examples of a device.
      say: told what is being done.
    """
    for generation in generations:
        for devices, name in topologies.SWEEPS[generation].items():
            topology = topologies.find(name)
            changed = with_batch(config, devices * per_device)
            yield from costs(changed, topology, only="train", search=False, say=say)


@dataclasses.dataclass(frozen=True)
class Claim:
    """Something that a sweep should show.

    Attributes:
      what: in words.
      holds: whether it does; None where that is not claimed.
      shown: the numbers.
    """

    what: str
    holds: bool | None
    shown: str


def claims(found: Sequence[Cost], config: ConfigDict, per_device: int) -> list[Claim]:
    """What must hold of one step on growing numbers of devices of one generation.

    Args:
      found: of one step and one generation, in the order of devices.
      config: of them.
      per_device: examples of a device.
    """
    if not all(one.fits for one in found):
        missing = ", ".join(one.topology for one in found if not one.fits)
        return [Claim("every size fits", False, f"not on {missing}")]
    spreads = _spread(found, "FLOPs", "total_flops"), _spread(found, "bytes", "total_bytes")
    rest = _gradients(found, config), _gathers(found), _all_reduces(found, config, per_device)
    return [*spreads, *rest]


def _spread(found: Sequence[Cost], what: str, field: str) -> Claim:
    values = [getattr(one, field) for one in found]
    spread = max(values) / min(values) - 1
    bounds = any(one.unknown_loops for one in found)
    return Claim(
        f"{what} of a device are constant to {TOLERANCE:.0%}",
        None if bounds else spread <= TOLERANCE,
        f"{min(values):.4g} to {max(values):.4g}, {spread:.2%} apart"
        + (f"; lower bounds: {_UNKNOWN}" if bounds else ""),
    )


def _gradients(found: Sequence[Cost], config: ConfigDict) -> Claim:
    # Kernels are rounded to the compute type before they are used, so that their gradients are of
    # that type; those of the last layer and of batch norm, and the statistics, are float32 always.
    share = jnp.dtype(config.dtype).itemsize / 4
    ratios = [
        moved(one.exchanges, "all-reduce")[1] / (share * one.parameter_bytes) for one in found
    ]
    low, high = GRADIENTS
    held = low <= min(ratios) and max(ratios) <= min(high, (1 + TOLERANCE) * min(ratios))
    more = max(ratios) <= high and _more_all_reduces(found)
    return Claim(
        f"all-reduces carry the gradients once, in {config.dtype}, and little else: {low:.2f} to "
        f"{high:.2f} of the parameters' bytes in that type, the same to {TOLERANCE:.0%}",
        None if more else held,
        ", ".join(f"{ratio:.3f}" for ratio in ratios) + (f", or more: {_UNKNOWN}" if more else ""),
    )


def _more_all_reduces(found: Sequence[Cost]) -> bool:
    """Whether there may be more than are counted: some are in loops that may count once."""
    reduces = (
        c for one in found if one.unknown_loops for c in one.exchanges if c.kind == "all-reduce"
    )
    return any(c.in_loop for c in reduces)


def _gathers(found: Sequence[Cost]) -> Claim:
    others = [(c, one.topology) for one in found for c in one.exchanges if c.kind != "all-reduce"]
    shown = "so"
    if others:
        largest, topology = max(others, key=lambda pair: pair[0].operand_bytes)
        shown = (
            f"{len(others)}; the largest, on {topology}: {largest.kind} of "
            f"{largest.operand_bytes} bytes in {largest.op_name or 'the step'}"
        )
    return Claim("nothing but all-reduces: no activations are gathered", not others, shown)


def _all_reduces(found: Sequence[Cost], config: ConfigDict, per_device: int) -> Claim:
    counts = [moved(one.exchanges, "all-reduce")[0] for one in found]
    what = f"at most {MOST_ALL_REDUCES} all-reduces"
    shown = ", ".join(map(str, counts))
    if not configs.has_whole_groups(config, per_device):
        return Claim(what, None, f"{shown}; the groups of batch norm lie over several devices")
    few = all(count <= MOST_ALL_REDUCES for count in counts)
    if few and _more_all_reduces(found):
        return Claim(what, None, f"{shown}, or more: {_UNKNOWN}")
    return Claim(what, few, shown)

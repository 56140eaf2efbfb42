"""Pruning: taking out the branches that nobody listens to (MaskConnect, end of 2.1).

A branch without a reader goes, and then so does every branch that only it read.  What is left is
an ordinary :class:`MaskConnectNet` with fewer branches a module and its connections as a field.

In evaluation it computes the same function.  In training it does not where a module after the first
has a projection in its shortcut: all branches of the module share the projection's batch norm, and
its statistics are over all of them, in the full network over those that are gone here, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from branchnets.counting import count_parameters, describe
from branchnets.errors import ConfigError
from branchnets.families.maskconnect import connectivity
from branchnets.families.maskconnect.model import Connections, MaskConnectNet, fixed
from branchnets.families.study import Slimmed, Subject
from branchnets.latency import measure_latency

PyTree = Any


def frozen_connections(
    model: MaskConnectNet, variables: Mapping[str, PyTree]
) -> dict[str, np.ndarray]:
    """Module name -> 0/1 [N, N before], of every module but the first.

    Raises:
      ConfigError: no masks, masks of another shape or fan-in than the network's, or masks that are
        still being learned.
    """
    stored = jax.device_get(variables.get("masks", {}))
    found: dict[str, np.ndarray] = {}
    for name, spec, before in model.readers():
        if spec.connections is not None:
            found[name] = np.asarray(fixed(spec.connections, spec.branches, before, name))
        else:
            found[name] = _mask_of(stored, name, (spec.branches, before))
    _check_frozen({name: mask for name, mask in found.items() if name in stored}, model.fan_in)
    return found


def _mask_of(stored: Mapping[str, Any], name: str, shape: tuple[int, int]) -> np.ndarray:
    if name not in stored:
        raise ConfigError(
            f"the variables have {'no mask of ' + name if stored else 'no masks'}, so nothing says "
            "what its branches read. Give all collections of the trained network, 'masks' too."
        )
    mask = np.asarray(stored[name])
    if mask.shape != shape:
        raise ConfigError(
            f"the mask of {name} has shape {mask.shape}, must be {shape}: a row for each of its "
            "branches, a column for each of the module before. Give the masks of this network."
        )
    return mask


def _check_frozen(masks: Mapping[str, np.ndarray], fan_in: int) -> None:
    # With K = 1, a mask that is still being learned may have come to zeros and a one in every row.
    # It cannot be told from a frozen one and passes: freezing would not change it, so that pruning
    # is exact.
    counts = {}
    for name, mask in masks.items():
        read = connectivity.inputs(mask)
        if read is None:
            raise ConfigError(
                f"the masks of {name} are real-valued: they are still being learned, so its "
                "connections are not settled. Train on into a phase of mode 'tune' "
                "(maskconnect.phases), which freezes the top K, and slim that checkpoint."
            )
        counts[name] = read
    for name, read in counts.items():
        if not connectivity.is_frozen(masks[name], fan_in):
            found = " or ".join(map(str, np.unique(read)))
            # Rows that are learned sum to 1 as well.
            learned = ", or train on into a phase of mode 'tune' if they are still being learned"
            raise ConfigError(
                f"the masks of {name} are frozen with K={found}, the config says "
                f"model.fan_in={fan_in}. Give the network the fan-in that its masks were frozen "
                f"with{learned if found == '1' else ''}."
            )


def prune_model(
    model: MaskConnectNet,
    connections: Mapping[str, np.ndarray],
    kept: Mapping[str, np.ndarray],
) -> MaskConnectNet:
    """The module of the pruned network.

    Args:
      model: the full network.
      connections: as :func:`frozen_connections` gives them.
      kept: module name -> indices of its branches that stay, increasing.
    """
    before: np.ndarray | None = None
    specs = []
    for name, spec in model.modules().items():
        chosen: Connections | None = None
        if before is not None:
            rows = connections[name][kept[name]][:, before] > 0
            chosen = tuple(tuple(np.flatnonzero(row).tolist()) for row in rows)
        specs.append(dataclasses.replace(spec, branches=len(kept[name]), connections=chosen))
        before = kept[name]
    rest = iter(specs)
    return model.clone(stages=tuple(tuple(next(rest) for _ in stage) for stage in model.stages))


#: Parameters and statistics whose last axis lists the branches' channels, branch after branch.
_PER_BRANCH = ("reduce", "reduce_bn", "branch_conv", "branch_bn", "expand", "expand_bn")


def prune_variables(
    model: MaskConnectNet, variables: Mapping[str, PyTree], kept: Mapping[str, np.ndarray]
) -> dict[str, PyTree]:
    """The weights and statistics of the branches that stay; a pure gather."""
    modules = model.modules()

    def gather(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        names = [str(entry.key) for entry in path][1:]  # without the collection
        name, part = "/".join(names[:2]), names[2] if len(names) > 2 else ""
        if name not in modules or part not in _PER_BRANCH:
            return leaf
        split = leaf.reshape(*leaf.shape[:-1], modules[name].branches, -1)
        chosen = jnp.take(split, jnp.asarray(kept[name]), axis=-2)
        return chosen.reshape(*leaf.shape[:-1], -1)

    weights = {collection: tree for collection, tree in variables.items() if collection != "masks"}
    return jax.tree_util.tree_map_with_path(gather, weights)


def prune_network(
    model: MaskConnectNet, variables: Mapping[str, PyTree]
) -> tuple[MaskConnectNet, PyTree, dict[str, np.ndarray]]:
    """(pruned module, its variables, module name -> indices of the branches that stay).

    The logits are those of the full network, in evaluation; see the module's docstring.

    Args:
      model: with frozen masks or fixed connections.
      variables: of the model; the masks among them are 0 and 1, K ones a row.

    Raises:
      ConfigError: masks that do not fit or are still learned; see :func:`frozen_connections`.
    """
    connections = frozen_connections(model, variables)
    kept = connectivity.alive(model.modules(), connections)
    weights = jax.device_get(prune_variables(model, jax.device_get(variables), kept))
    return prune_model(model, connections, kept), weights, kept


def describe_pruned(
    model: MaskConnectNet,
    subject: Subject,
    small: MaskConnectNet,
    weights: PyTree,
    kept: Mapping[str, np.ndarray],
) -> Slimmed:
    """The pruned network of a run, as :func:`prune_network` gives it, with what it saves."""
    full = jax.device_get(subject.variables)
    record = {
        "branches": {name: indices.tolist() for name, indices in kept.items()},
        **_sizes(model, small, full, weights, subject.image_shape),
        "latency": measure_latency(
            {"this": (small, weights), "parent": (model, full)}, subject.image_shape
        ),
    }
    text = "\n".join([connectivity.render(model.modules(), kept), "", _text(record)])
    return Slimmed(small, weights, tuple(subject.class_names), None, record, text)


def layer_macs(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Multiply-adds of one image in convolutions and the linear layer, without the mixing."""
    mixed = model.modules() if isinstance(model, MaskConnectNet) else ()
    rows = describe(model, image_shape, depth=3).stages
    # What a module multiplies outside its layers is the mixing of its inputs.
    return sum(row.macs for row in rows if row.name not in mixed)


def _sizes(
    model: MaskConnectNet, small: MaskConnectNet, full: PyTree, weights: PyTree, shape: Any
) -> dict[str, Any]:
    """Parameters (the paper's Train and Test columns) and multiply-adds; masks are not counted."""
    ours, theirs = describe(small, shape), describe(model, shape)
    parameters, whole = count_parameters(weights), count_parameters(full)
    return {
        "parameters": parameters,
        "macs": ours.macs,
        "parent_parameters": whole,
        "parent_macs": theirs.macs,
        "parameters_ratio": parameters / whole,
        "macs_ratio": ours.macs / theirs.macs,
    }


def _text(record: Mapping[str, Any]) -> str:
    lines = [
        f"parameters    {record['parent_parameters']:>13,} -> {record['parameters']:>13,}  "
        f"{record['parameters_ratio']:6.1%}",
        f"multiply-adds {record['parent_macs']:>13,} -> {record['macs']:>13,}  "
        f"{record['macs_ratio']:6.1%}",
    ]
    times = record["latency"]["milliseconds"]
    for batch, mine in times["this"].items():
        whole = times["parent"][batch]
        lines.append(
            f"milliseconds  {whole:13.2f} -> {mine:13.2f}  {mine / whole:6.1%}  for batches of "
            f"{batch}"
        )
    return "\n".join(lines)

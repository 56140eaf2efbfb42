"""Pruning: taking out the branches that nobody listens to (MaskConnect, end of 2.1).

A branch without a reader goes, and then so does every branch that only it read.  What is left
computes the same function: it is an ordinary :class:`MaskConnectNet` with fewer branches a module
and its connections as a field.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

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
      ConfigError: masks that are still being learned, or of another shape than the network's.
    """
    stored = jax.device_get(variables.get("masks", {}))
    found: dict[str, np.ndarray] = {}
    before = 0
    for name, spec in model.modules().items():
        if before and spec.connections is not None:
            found[name] = np.asarray(fixed(spec.connections, spec.branches, before, name))
        elif before:
            found[name] = np.asarray(stored.get(name, np.zeros(())))
            _check_shape(found[name], (spec.branches, before), name)
            _check_frozen(found[name], model.fan_in, name)
        before = spec.branches
    return found


def _check_shape(mask: np.ndarray, shape: tuple[int, int], name: str) -> None:
    if mask.shape != shape:
        raise ConfigError(
            f"the mask of {name} has shape {mask.shape}, must be {shape}: a row for each of its "
            "branches, a column for each of the module before. Give the masks of this network."
        )


def _check_frozen(mask: np.ndarray, fan_in: int, name: str) -> None:
    if np.isin(mask, (0, 1)).all() and (mask.sum(-1) == fan_in).all():
        return
    raise ConfigError(
        f"the masks of {name} are still being learned, so its connections are not settled. Train "
        "on into a phase of mode 'tune' (maskconnect.phases), which freezes the top K, and slim "
        "that checkpoint."
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
    specs = {}
    for name, spec in model.modules().items():
        chosen: Connections | None = None
        if before is not None:
            rows = connections[name][kept[name]][:, before] > 0
            chosen = tuple(tuple(np.flatnonzero(row).tolist()) for row in rows)
        specs[name] = dataclasses.replace(spec, branches=len(kept[name]), connections=chosen)
        before = kept[name]
    stages = tuple(
        tuple(specs[f"stage{s + 2}/block{b}"] for b in range(len(stage)))
        for s, stage in enumerate(model.stages)
    )
    return model.clone(stages=stages)


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

    Args:
      model: with frozen masks or fixed connections.
      variables: of the model; the masks among them are 0 and 1, K ones a row.

    Raises:
      ConfigError: masks that are still being learned, or of another shape than the network's.
    """
    connections = frozen_connections(model, variables)
    kept = connectivity.alive(model.modules(), connections)
    weights = jax.device_get(prune_variables(model, jax.device_get(variables), kept))
    return prune_model(model, connections, kept), weights, kept


def prune(model: MaskConnectNet, subject: Subject) -> Slimmed:
    """The pruned network of a run whose masks are frozen, with what it saves.

    Raises:
      ConfigError: masks that are still being learned, or of another shape than the network's.
    """
    small, weights, kept = prune_network(model, subject.variables)
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

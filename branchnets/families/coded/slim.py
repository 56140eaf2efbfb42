"""Taking the branches of some classes out of a coded network (Coded ResNeXt, section 4.3).

What is left is an ordinary :class:`CodedResNeXt` with fewer branches in every coded block and fewer
logits; it still divides energies by the original N (footnote 4), so its logits are those of the
full network with the other branches removed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from branchnets.counting import count_parameters, describe
from branchnets.errors import ConfigError
from branchnets.families.coded.codes import CodingScheme
from branchnets.families.coded.model import CodedResNeXt

PyTree = Any
#: Coded block -> indices of its branches that stay, increasing, as an array that may be traced.
Keep = Mapping[str, Any]

#: Module -> parameters and statistics whose last axis lists the branches' channels, N*D of them.
_BRANCH_LAST = ("reduce", "reduce_bn", "branch_conv", "branch_bn")

_PROJECTION = ["shortcut", "conv"]


def keep_of(schemes: Mapping[str, CodingScheme], classes: Sequence[int]) -> dict[str, np.ndarray]:
    """The branches that work for a class, or for at least one of several.

    Args:
      schemes: coded block -> its scheme.
      classes: indices, at least one.

    Returns:
      Block name -> int32 [n], increasing.
    """
    if not len(classes):
        raise ConfigError("name at least one class to keep the branches of")
    return {
        block: np.flatnonzero(scheme.codewords[np.asarray(classes)].any(axis=0)).astype(np.int32)
        for block, scheme in schemes.items()
    }


def slim_model(model: CodedResNeXt, keep: Keep, outputs: Sequence[int] | jax.Array) -> CodedResNeXt:
    """The module of the slimmed network: fewer branches a block, one logit an output.

    Args:
      model: the full network.
      keep: only the lengths matter here.
      outputs: classes whose logits stay; only how many matters here.

    Raises:
      ConfigError: branches that are concatenated, or a block that is not coded.
    """
    check_slimmable(model)
    coded = model.coded_blocks()
    for block in keep:
        if block not in coded:
            raise ConfigError(f"{block!r} is not a coded block; those are {', '.join(coded)}")
    fewer = {b: dataclasses.replace(coded[b], branches=len(kept)) for b, kept in keep.items()}
    return model.with_blocks(fewer, num_classes=len(outputs))


def slim_variables(
    model: CodedResNeXt, variables: PyTree, keep: Keep, outputs: Sequence[int] | jax.Array
) -> PyTree:
    """The variables of the slimmed network; a pure gather, so it can be jitted and mapped.

    Args:
      model: the full network.
      variables: its collections.
      keep: block name -> indices [n] of its branches that stay; may be traced.
      outputs: classes whose logits stay, [m]; may be traced.

    Returns:
      The same collections with fewer channels, for :func:`slim_model`'s module.
    """
    check_slimmable(model)
    coded = model.coded_blocks()

    def gather(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        names = [str(entry.key) for entry in path][1:]  # without the collection
        if names[0] == "head":
            return jnp.take(leaf, jnp.asarray(outputs), axis=-1)
        block, module = "/".join(names[:2]), names[2] if len(names) > 2 else ""
        if block not in keep:
            return leaf
        channels = channels_of(jnp.asarray(keep[block]), coded[block].width)
        if module in _BRANCH_LAST:
            return jnp.take(leaf, channels, axis=-1)
        return jnp.take(leaf, channels, axis=-2) if module == "expand" else leaf

    return jax.tree_util.tree_map_with_path(gather, variables)


def channels_of(branches: jax.Array, width: int) -> jax.Array:
    """Indices of the channels of some branches, D each: [n] -> [n*D]."""
    return (branches[:, None] * width + jnp.arange(width)).reshape(-1)


def masks_of(keep: Keep, model: CodedResNeXt, batch: int) -> dict[str, jax.Array]:
    """The ``remove`` masks under which the full network computes what the slimmed one does.

    Args:
      keep: block name -> indices of its branches that stay; may be traced.
      model: the full network.
      batch: B.

    Returns:
      Block name -> [B, N] float32, 1 for a branch that stays.
    """
    coded = model.coded_blocks()
    masks = {}
    for block, branches in keep.items():
        kept = jnp.zeros(coded[block].branches).at[jnp.asarray(branches)].set(1.0)
        masks[block] = jnp.broadcast_to(kept, (batch, kept.size))
    return masks


def without_shortcuts(variables: PyTree) -> int:
    """Parameters without the projections of the shortcuts, the paper's way of counting.

    So counted, a classifier has 37.2, 27.1 and 34.4 % on CIFAR-10, CIFAR-100 and ImageNet, for
    which section 4.3 prints 38, 27 and 35 %.
    """
    flat = jax.tree_util.tree_leaves_with_path(variables["params"])
    names = [[str(entry.key) for entry in path[-3:-1]] for path, _ in flat]
    kept = [leaf for name, (_, leaf) in zip(names, flat, strict=True) if name != _PROJECTION]
    return count_parameters(kept)


def layer_macs(model: CodedResNeXt, image_shape: tuple[int, int, int]) -> int:
    """Multiply-adds of one image in convolutions and the linear layer, as the paper counts them.

    The products that make the energies are left out; :func:`branchnets.counting.describe` counts
    them too.
    """
    return describe(without_energies(model), image_shape).macs


def without_energies(model: CodedResNeXt) -> CodedResNeXt:
    """The plain ResNeXt of the same layers: every ratio N/N, so that no block has energies."""
    coded = model.coded_blocks()
    return model.with_blocks(
        {b: dataclasses.replace(spec, norm_branches=None) for b, spec in coded.items()}
    )


def check_slimmable(model: CodedResNeXt) -> None:
    """Refuses a network whose branches are concatenated: the place of a channel matters there."""
    if model.aggregate != "sum":
        raise ConfigError(
            f"a network with aggregate={model.aggregate!r} cannot be slimmed: the next block reads "
            "each branch's own channels, so none can be taken out. Train with aggregate='sum'."
        )
    if not model.coded_blocks():
        raise ConfigError(
            "this network has no coded block (model.active keeps every branch everywhere), so "
            "every branch works for every class and there is nothing to take out."
        )

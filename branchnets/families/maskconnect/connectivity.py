"""What a set of connections says: which branches anyone still listens to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from branchnets.families.maskconnect.model import ModuleSpec


def entropy(mask: jax.Array) -> jax.Array:
    """-sum_k m_jk log m_jk / log C of every row: 1 is uniform, 0 a single input; [J, C] to [J]."""
    logs = jnp.log(jnp.where(mask > 0, mask, 1.0))
    return -jnp.sum(mask * logs, axis=-1) / jnp.log(jnp.maximum(mask.shape[-1], 2))


def inputs(mask: Any) -> np.ndarray | None:
    """How many branches each one reads, int [J], of a mask of zeros and ones; else None; [J, C]."""
    mask = np.asarray(mask)
    return mask.sum(axis=-1).astype(int) if np.isin(mask, (0, 1)).all() else None


def is_frozen(mask: Any, fan_in: int) -> bool:
    """Whether a mask [J, C] is one that freezing the K largest entries of each row gives.

    A mask that has learned to read one branch alone, with K = 1, cannot be told from a frozen one;
    nor need it be, since freezing would not change it.
    """
    counts = inputs(mask)
    return counts is not None and bool((counts == fan_in).all())


def alive(
    modules: Mapping[str, ModuleSpec], connections: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Module name -> indices of the branches that reach the output, increasing.

    Transitive: every branch of the last module counts; before it, a branch that a counting branch
    of the next module reads.

    Args:
      modules: in order from input to output.
      connections: module name -> 0/1 [N, N before], of every module but the first.
    """
    names = list(modules)
    kept = {names[-1]: np.arange(modules[names[-1]].branches)}
    for before, name in zip(names[-2::-1], names[:0:-1], strict=True):
        read = np.asarray(connections[name])[kept[name]].any(axis=0)
        kept[before] = np.flatnonzero(read)
    return {name: kept[name] for name in names}


def share(modules: Mapping[str, ModuleSpec], kept: Mapping[str, np.ndarray]) -> float:
    """The part of all branches that reach the output; ``kept`` as :func:`alive` gives it."""
    return sum(map(len, kept.values())) / sum(spec.branches for spec in modules.values())


def render(modules: Mapping[str, ModuleSpec], kept: Mapping[str, np.ndarray]) -> str:
    """The branches of every module as text: a square, hollow where nobody listens."""
    wide = max(map(len, modules))
    rows = ["Branches of each module; hollow ones reach nobody and can be pruned:"]
    for name, spec in modules.items():
        squares = "".join("■" if j in kept[name] else "□" for j in range(spec.branches))
        rows.append(f"  {name:<{wide}}  {squares}  {len(kept[name])} of {spec.branches}")
    return "\n".join(rows)

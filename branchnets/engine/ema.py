"""The running average of weights and statistics that is evaluated in place of the newest ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from branchnets.families.base import Family

PyTree = Any


def begin(family: Family, variables: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """The averages before the first step: a copy of every collection that the family averages."""
    kept = (name for name in family.averaged if name in variables)
    return {name: jax.tree.map(jnp.copy, variables[name]) for name in kept}


def advance(
    averages: Mapping[str, PyTree],
    variables: Mapping[str, PyTree],
    step: jax.Array,
    decay: float,
) -> dict[str, PyTree]:
    """The averages after an update.

        a_t = d_t a_(t-1) + (1 - d_t) x_t,    d_t = min(decay, (1 + t) / (10 + t))

    The lower rate of the first steps forgets the random start soon, as TensorFlow's
    ExponentialMovingAverage does when it is told the step.

    Args:
      averages: collection -> averages so far.
      variables: collection -> values after the update, those that have averages among them.
      step: t, updates before this one.
      decay: the rate that is reached.
    """
    rate = 1 - jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    newest = {name: variables[name] for name in averages}
    return optax.incremental_update(newest, dict(averages), rate)

"""What a training run carries from step to step; all of it is checkpointed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from branchnets.engine import ema
from branchnets.engine.leaves import leaf_name
from branchnets.families.base import Family, purpose_key

PyTree = Any


@flax.struct.dataclass
class TrainState:
    """The state of a run.  Random numbers are functions of (seed, step, purpose): none is here.

    Attributes:
      step: int32 scalar, updates so far.
      params: trainable collection -> variables, such as ``{"params": ...}``.
      model_state: other collection -> variables, such as ``{"batch_stats": ...}``.
      opt_state: trainable collection -> optimiser state.
      extra: the family's own; one structure for the whole run.
      ema: collection -> running averages of its variables (``ema.decay``); none where there are
        none to keep.
    """

    step: jax.Array
    params: dict[str, PyTree]
    model_state: dict[str, PyTree]
    opt_state: dict[str, PyTree]
    extra: PyTree
    ema: dict[str, PyTree] = flax.struct.field(default_factory=dict)

    @property
    def variables(self) -> dict[str, PyTree]:
        """All collections as they are trained, as ``model.apply`` takes them."""
        return {**self.params, **self.model_state}

    @property
    def averaged(self) -> dict[str, PyTree]:
        """All collections as they are evaluated: running averages in place of what has any."""
        return {**self.variables, **self.ema}


def create(
    family: Family,
    optimizers: dict[str, optax.GradientTransformation],
    image_shape: tuple[int, int, int],
    seed: int,
    given: Mapping[str, jax.Array] | None = None,
    *,
    averaged: bool = False,
) -> TrainState:
    """The state before the first step; pure, so that it can be jitted or only shaped.

    Args:
      family: brings the network and its extra state.
      optimizers: one for every trainable collection; none for evaluation alone.
      image_shape: (H, W, C).
      seed: parameters are a function of it alone.
      given: variables to begin with in place of fresh ones, by name:
        ``{"params/stem/conv/kernel": array}``.
      averaged: whether running averages are kept.
    """
    key = jax.random.key(seed)
    images = jnp.zeros((1, *image_shape), jnp.float32)
    variables = dict(family.model.init(purpose_key(key, "init"), images))
    if given:
        variables = jax.tree_util.tree_map_with_path(
            lambda path, fresh: given.get(leaf_name(path), fresh), variables
        )
    averages = ema.begin(family, variables) if averaged else {}
    params = {name: variables.pop(name) for name in family.trainable}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=variables,
        opt_state={name: tx.init(params[name]) for name, tx in optimizers.items()},
        extra=family.init_extra({**params, **variables}),
        ema=averages,
    )

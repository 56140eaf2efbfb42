"""Batch-norm statistics taken anew over training batches, with frozen weights.

For every layer, mean and variance are the means over batches of what the layer normalised each
batch by (over its groups, where there are several), all batches weighing the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from branchnets.engine import mesh as meshes
from branchnets.engine.setup import EvalSetup
from branchnets.engine.state import TrainState
from branchnets.engine.step import BatchFn, split_batch
from branchnets.errors import ConfigError, TrainingError
from branchnets.families.base import Context, Family, Phase, purpose_key
from branchnets.families.objectives import Batch

PyTree = Any

#: The collection of the statistics.
STATISTICS = "batch_stats"


def reestimated(
    setup: EvalSetup, state: TrainState, inputs: Any, total_steps: int, batches: int
) -> TrainState:
    """:func:`reestimate` from the batches that a run would have gone on with.

    Args:
      setup: of the run.
      state: of the run, after any step.
      inputs: the training input.
      total_steps: of the run.
      batches: how many.
    """
    step = int(state.step)
    return reestimate(
        setup.family,
        state,
        inputs,
        phase_at(setup.family.phases(total_steps), step),
        range(step, step + batches),
        setup.mesh,
        setup.config.optimizer.accumulate_steps,
    )


def reestimate(
    family: Family,
    state: TrainState,
    inputs: Any,
    phase: Phase,
    steps: Sequence[int],
    mesh: Mesh,
    accumulate: int = 1,
) -> TrainState:
    """The state with the statistics that its weights have, and their running averages if any.

    Args:
      family: whose loss is computed in training mode, for the statistics alone.
      state: weights and all else in it stay as they are.
      inputs: the training input.
      phase: whose loss.
      steps: of the training batches, at least one; random numbers are those that a step has.
      mesh: the devices.
      accumulate: parts that a batch is computed in, as in training: groups lie inside a part.

    Raises:
      ConfigError: a network without batch norm.
      TrainingError: statistics that are not finite.
    """
    # Statistics belong to weights: averages that have none of their own are used with the newest's.
    own = STATISTICS in state.ema
    networks = [state.variables, state.averaged] if own else [state.averaged]
    if STATISTICS not in networks[0]:
        raise ConfigError(
            "the network has no batch norm whose statistics could be taken anew; leave "
            "bn_reestimation.batches at 0."
        )
    add = jax.jit(
        _statistics(family, inputs.batch, phase, accumulate, mesh),
        out_shardings=meshes.replicated(mesh),
    )
    totals = [jax.tree.map(jnp.zeros_like, network[STATISTICS]) for network in networks]
    for step in steps:
        arrays, number = inputs.arrays(step), jnp.asarray(step, jnp.int32)
        totals = [
            add(network, state.extra, arrays, number, total)
            for network, total in zip(networks, totals, strict=True)
        ]
        jax.block_until_ready(totals)  # or the host would read far ahead of the devices
    found = jax.tree.map(lambda leaf: leaf / len(steps), totals)
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(found)):
        raise TrainingError(
            f"the batch-norm statistics of {len(steps)} training batches are not finite; they were "
            "discarded. Set bn_reestimation.batches=0 to go on without them."
        )
    return dataclasses.replace(
        state,
        model_state={**state.model_state, STATISTICS: found[0]},
        ema={**state.ema, STATISTICS: found[1]} if own else state.ema,
    )


def _statistics(
    family: Family, batch_fn: BatchFn, phase: Phase, parts: int, mesh: Mesh | None
) -> Any:
    """(variables, extra, arrays, step, total) -> total + the statistics of the step's batch."""
    own = family.with_momentum(0.0)

    def add(
        variables: PyTree, extra: PyTree, arrays: PyTree, step: jax.Array, total: PyTree
    ) -> Any:
        key = jax.random.fold_in(jax.random.wrap_key_data(arrays["key"]), step)
        batch = batch_fn(arrays, step, purpose_key(key, "augment"))
        # From zero, 0 + 1 * (new - 0) is what was measured, with nothing rounded away.
        empty = {**variables, STATISTICS: jax.tree.map(jnp.zeros_like, variables[STATISTICS])}

        def measure(piece: Batch, context: Context) -> PyTree:
            _, aux = own.loss(empty, extra, piece, context)
            return aux.mutated[STATISTICS]

        if parts == 1:
            found = measure(batch, Context(step, phase, key))
            return jax.tree.map(jnp.add, total, found)

        def part(carry: None, piece: tuple[jax.Array, Batch]) -> tuple[None, PyTree]:
            index, examples = piece
            inner = jax.random.fold_in(key, index)
            return None, measure(examples, Context(step, phase, inner, step_key=key))

        pieces = (jnp.arange(parts), split_batch(batch, parts, mesh))
        _, found = jax.lax.scan(part, None, pieces)
        return jax.tree.map(lambda sum_, leaf: sum_ + jnp.mean(leaf, axis=0), total, found)

    return add


def phase_at(phases: Sequence[Phase], step: int) -> Phase:
    """The phase that did the update before a step: the first one before any, the last at the end.

    Args:
      phases: of a run, in order.
      step: updates done.
    """
    end = 0
    for phase in phases:
        end += phase.steps
        if step <= end:
            return phase
    return phases[-1]

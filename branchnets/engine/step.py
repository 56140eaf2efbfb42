"""One training step: batch, loss, gradient, update, all in one jitted function."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from branchnets.engine import compiler, ema
from branchnets.engine import mesh as meshes
from branchnets.engine.state import TrainState
from branchnets.families.base import Aux, Context, Family, Phase, purpose_key
from branchnets.families.objectives import Batch, Metrics

PyTree = Any
#: (arrays, step, key) -> batch; traced.  What an input's ``batch`` is.  ``arrays["key"]`` is the
#: key of the seed as data: an argument, so that runs of other seeds share the compiled step.
BatchFn = Callable[[PyTree, jax.Array, jax.Array], dict[str, jax.Array]]


@flax.struct.dataclass
class Tally:
    """What is added up on the device between two looks of the host.

    Attributes:
      metrics: name -> (sum, count).
      steps: int32, steps added up.
      first_bad_step: int32, the first step whose update was not finite; -1 if none.
      bad: name of a loss term, or ``"gradient"`` -> whether it was not finite at that step.
    """

    metrics: Metrics
    steps: jax.Array
    first_bad_step: jax.Array
    bad: dict[str, jax.Array]


@flax.struct.dataclass
class _Result:
    """What one (micro)batch gives: gradients, loss terms, and what the loss returned beside."""

    gradients: PyTree
    terms: dict[str, jax.Array]
    aux: Aux


def make_step(
    family: Family,
    optimizers: dict[str, optax.GradientTransformation],
    batch_fn: BatchFn,
    phase: Phase,
    *,
    accumulate: int = 1,
    mesh: Mesh | None = None,
    ema_decay: float = 0.0,
) -> Callable[[TrainState, PyTree], tuple[TrainState, Tally]]:
    """The training step as a pure function (state, arrays) -> (state, tally of this step).

    An update that is not finite is discarded: the state keeps its old values and only ``step``
    moves on, and the tally says which term was at fault.

    Args:
      family: brings the loss.
      optimizers: one for every trainable collection.
      batch_fn: makes the batch of a step.
      phase: static.
      accumulate: parts that the batch is computed in; batch-norm groups lie inside one part, and
        the gradient is the mean over parts.
      mesh: the devices over which a part is spread; None is one device.
      ema_decay: of the running averages that the state keeps, if it keeps any.
    """

    def step_fn(state: TrainState, arrays: PyTree) -> tuple[TrainState, Tally]:
        key = jax.random.fold_in(jax.random.wrap_key_data(arrays["key"]), state.step)
        with jax.named_scope("input"):
            batch = batch_fn(arrays, state.step, purpose_key(key, "augment"))
        context = Context(state.step, phase, key)
        if accumulate == 1:
            result = _gradients(family, state, batch, context)
        else:
            result = _accumulated(family, state, batch, context, accumulate, mesh)
        with jax.named_scope("update"):
            updated = _update(family, optimizers, state, result, context)
            if state.ema:
                averages = ema.advance(state.ema, updated.variables, state.step, ema_decay)
                updated = dataclasses.replace(updated, ema=averages)
        with jax.named_scope("check"):
            return _keep_finite(state, updated, result)

    return step_fn


def _total(terms: dict[str, jax.Array]) -> jax.Array:
    return functools.reduce(jnp.add, terms.values())


def _gradients(family: Family, state: TrainState, batch: Batch, context: Context) -> _Result:
    def total(params: PyTree) -> tuple[jax.Array, tuple[dict[str, jax.Array], Aux]]:
        variables = {**params, **state.model_state}
        with jax.named_scope(
            "loss"
        ):  # traces and compiled programs tell forward and backward by it
            terms, aux = family.loss(variables, state.extra, batch, context)
        return _total(terms), (terms, aux)

    gradients, (terms, aux) = jax.grad(total, has_aux=True)(state.params)
    return _Result(gradients, terms, aux)


def split_batch(batch: Batch, parts: int, mesh: Mesh | None) -> dict[str, jax.Array]:
    """Consecutive parts of a batch, [B, ...] -> [parts, B / parts, ...], each over the mesh."""

    def split(array: jax.Array) -> jax.Array:
        array = array.reshape(parts, -1, *array.shape[1:])
        if mesh is None:
            return array
        return jax.lax.with_sharding_constraint(array, meshes.spread(mesh, axis=1))

    return {name: split(array) for name, array in batch.items()}


def _accumulated(
    family: Family,
    state: TrainState,
    batch: Batch,
    context: Context,
    parts: int,
    mesh: Mesh | None,
) -> _Result:
    """The mean gradient over parts; statistics move on from part to part."""
    pieces = split_batch(batch, parts, mesh)

    def part(model_state: PyTree, piece: tuple[jax.Array, Batch]) -> tuple[PyTree, _Result]:
        index, examples = piece
        key = jax.random.fold_in(context.key, index)
        own = Context(context.step, context.phase, key, step_key=context.key)
        before = dataclasses.replace(state, model_state=model_state)
        result = _gradients(family, before, examples, own)
        return {**model_state, **result.aux.mutated}, result

    model_state, results = jax.lax.scan(part, state.model_state, (jnp.arange(parts), pieces))
    mean = lambda tree: jax.tree.map(lambda x: jnp.mean(x, axis=0), tree)  # noqa: E731
    metrics = jax.tree.map(lambda x: jnp.sum(x, axis=0), results.aux.metrics)
    mutated = {name: model_state[name] for name in results.aux.mutated}
    aux = Aux(metrics, mutated, mean(results.aux.extra))
    return _Result(mean(results.gradients), mean(results.terms), aux)


def _update(
    family: Family,
    optimizers: dict[str, optax.GradientTransformation],
    state: TrainState,
    result: _Result,
    context: Context,
) -> TrainState:
    params, opt_state = {}, {}
    for name, optimizer in optimizers.items():
        updates, opt_state[name] = optimizer.update(
            result.gradients[name], state.opt_state[name], state.params[name]
        )
        params[name] = optax.apply_updates(state.params[name], updates)
    updated = dataclasses.replace(
        state,
        params=params,
        opt_state=opt_state,
        model_state={**state.model_state, **result.aux.mutated},
    )
    return family.after_update(updated, result.aux, context)


def _keep_finite(old: TrainState, new: TrainState, result: _Result) -> tuple[TrainState, Tally]:
    """The new state if its update is finite, else the old one; and the step's tally."""
    bad = {name: ~jnp.isfinite(value) for name, value in result.terms.items()}
    bad["gradient"] = ~jnp.isfinite(optax.tree.norm(result.gradients))
    bad["batch_statistics"] = ~jnp.isfinite(optax.tree.norm(new.model_state))
    bad["parameters"] = ~jnp.isfinite(optax.tree.norm(new.params))
    broken = jnp.any(jnp.stack(list(bad.values())))
    kept = jax.tree.map(lambda a, b: jnp.where(broken, a, b), old, new)
    one = jnp.ones((), jnp.float32)
    metrics: Metrics = {f"loss/{name}": (value, one) for name, value in result.terms.items()}
    metrics["loss"] = (_total(result.terms), one)
    metrics |= result.aux.metrics
    tally = Tally(
        # A step that is thrown away must not spoil the interval's means either.
        metrics=jax.tree.map(lambda x: jnp.where(broken, 0, x), metrics),
        steps=jnp.ones((), jnp.int32),
        first_bad_step=jnp.where(broken, old.step, -1),
        bad=bad,
    )
    return dataclasses.replace(kept, step=old.step + 1), tally


def add_tallies(total: Tally, step: Tally) -> Tally:
    """The tally of an interval and one more step; the first bad step stays."""
    first = total.first_bad_step < 0
    return Tally(
        metrics=jax.tree.map(jnp.add, total.metrics, step.metrics),
        steps=total.steps + step.steps,
        first_bad_step=jnp.where(first, step.first_bad_step, total.first_bad_step),
        bad={name: jnp.where(first, step.bad[name], total.bad[name]) for name in step.bad},
    )


def empty_tally(like: Tally) -> Tally:
    """A tally of no steps, of the structure of ``like`` (arrays or shapes)."""
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
    return dataclasses.replace(zeros, first_bad_step=jnp.full((), -1, jnp.int32))


def compile_step(
    step_fn: Callable[[TrainState, PyTree], tuple[TrainState, Tally]], mesh: Mesh
) -> Callable[[TrainState, PyTree, Tally], tuple[TrainState, Tally, jax.Array]]:
    """Jits a step for a mesh: (state, arrays, running tally) -> (state, running tally, step).

    State and tally are donated: their old buffers are gone after the call.  The step count is
    given once more, so that the host can wait for a step without holding on to the state.
    """

    def run(state: TrainState, arrays: PyTree, tally: Tally) -> tuple[TrainState, Tally, jax.Array]:
        state, step = step_fn(state, arrays)
        # A copy: an output that is the same value as another may share its (donated) buffer.
        return state, add_tallies(tally, step), state.step + 0

    copy = meshes.replicated(mesh)
    return jax.jit(
        run,
        donate_argnums=(0, 2),
        out_shardings=(copy, copy, copy),
        compiler_options=compiler.options(mesh),
    )

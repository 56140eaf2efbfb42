"""Exact evaluation: every example counts once, whatever the batch size and device count."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from branchnets.engine.hosts import distributed
from branchnets.engine.leaves import zeros
from branchnets.families.base import EvalMode, Family, purpose_key

PyTree = Any


class Evaluator:
    """Evaluates a family in all its modes; compiles each mode once.

    Args:
      family: brings the modes.
      seed: of modes that draw random numbers.
    """

    def __init__(self, family: Family, seed: int) -> None:
        # An argument of what is compiled, so that runs of other seeds share it.
        self._key = np.asarray(jax.random.key_data(jax.random.key(seed)))
        self._modes = {
            name: self._compile(name, mode) for name, mode in family.eval_modes().items()
        }

    def _compile(self, name: str, mode: EvalMode) -> Any:
        def add(
            variables: PyTree, extra: PyTree, batch: PyTree, index: Any, seed: Any, total: PyTree
        ) -> Any:
            key = purpose_key(jax.random.wrap_key_data(seed), f"eval/{name}")
            metrics = mode(variables, extra, batch, jax.random.fold_in(key, index))
            return jax.tree.map(jnp.add, total, metrics)

        def shapes(variables: PyTree, extra: PyTree, batch: PyTree) -> Any:
            # Placed as the sums will be, or the second batch would compile anew.
            place = jax.tree.leaves(variables)[0].sharding
            made = jax.eval_shape(mode, variables, extra, batch, jax.random.key(0))
            return jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), made
            )

        return jax.jit(add), shapes

    def lower(
        self, mode: str, variables: PyTree, extra: PyTree, batch: dict[str, jax.ShapeDtypeStruct]
    ) -> jax.stages.Lowered:
        """The step that adds a batch to a mode's sums, ready to be compiled where arrays will lie.

        Args:
          mode: of the family's modes.
          variables, extra, batch: shapes with shardings.
        """
        add, shapes = self._modes[mode]
        return add.lower(variables, extra, batch, 0, self._key, shapes(variables, extra, batch))

    def __call__(
        self,
        variables: PyTree,
        extra: PyTree,
        batches: Iterable[dict[str, jax.Array]],
        track: Callable[[Any], Iterable[Any]] = iter,
    ) -> dict[str, Any]:
        """Metric -> sum / count: a float, or a numpy array for metrics with axes.

        What is only counted (count None) is its sum.
        Metrics of a mode other than ``""`` are named ``"mode/metric"``.  0/0 is nan: a class
        without examples has no mean.  ``unreadable``, of streamed batches, is how many examples
        could not be used and are in no metric, if there were any.  ``track`` goes through the
        batches, and may show how far it is.
        """
        totals: dict[str, Any] = {}
        for index, batch in enumerate(track(batches)):
            for name, (add, shapes) in self._modes.items():
                if name not in totals:
                    totals[name] = jax.tree.map(zeros, shapes(variables, extra, batch))
                totals[name] = add(variables, extra, batch, index, self._key, totals[name])
        found = {
            f"{mode}/{metric}" if mode else metric: mean(*pair)
            for mode, metrics in jax.device_get(totals).items()
            for metric, pair in metrics.items()
        }
        # Each process has read a part of them.
        if unreadable := distributed.total(getattr(batches, "unreadable", 0)):
            found["unreadable"] = float(unreadable)
        return found


def mean(total: Any, count: Any) -> Any:
    """total / count in float64, as a float or an array; nan where count is 0.

    Without a count (None) it is the total.
    """
    value = np.asarray(total, np.float64)
    if count is not None:
        with np.errstate(invalid="ignore", divide="ignore"):
            value = value / np.asarray(count, np.float64)
    return float(value) if value.ndim == 0 else value


def scalars(metrics: dict[str, Any]) -> dict[str, float]:
    """The metrics that are single numbers."""
    return {name: value for name, value in metrics.items() if isinstance(value, float)}

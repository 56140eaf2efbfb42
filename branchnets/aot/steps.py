"""The steps that a config's trainer would run on some devices, ready to be compiled."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
from ml_collections import ConfigDict

from branchnets.data.streamed.stream import AHEAD
from branchnets.engine import evaluate, executable
from branchnets.engine.budget import on_each_device
from branchnets.engine.leaves import nbytes
from branchnets.engine.setup import Plan, outline


@dataclasses.dataclass(frozen=True)
class Step:
    """One of them.

    Attributes:
      name: "train" or "eval"; with its mode, "train:tune", where there are several.
      lower: traces it, with the functions that the trainer has.
      batch_size: examples of it, on all devices.
      model_flops: of the convolutions and linear layers for one example; in training, forward and
        backward.
      parts: what is on each device while it runs, by name: bytes.
      waiting_bytes: of these, what the compiler does not see: it is no argument of the step.
      parameter_bytes: of the network; in training its gradients have as many.
    """

    name: str
    lower: Callable[[], jax.stages.Lowered]
    batch_size: int
    model_flops: float
    parts: dict[str, int]
    waiting_bytes: int
    parameter_bytes: int


def steps(config: ConfigDict, devices: list[Any]) -> Iterator[Step]:
    """Training, a step for every mode of its phases, and evaluation, one for every mode.

    Args:
      config: overrides included.
      devices: of one topology.

    Raises:
      UserError: a config that cannot run on them.
    """
    plan = outline(config, devices)
    yield from _training(plan)
    yield from _evaluation(plan)


def _macs(plan: Plan, image_shape: tuple[int, ...]) -> int:
    height, width, channels = image_shape
    return plan.family.layer_macs(plan.family.model, (height, width, channels))


def _state(plan: Plan) -> dict[str, int]:
    state = plan.abstract_state()
    parts = {
        "parameters and statistics": nbytes((state.params, state.model_state, state.extra)),
        "optimiser state": nbytes(state.opt_state),
    }
    if state.ema:
        parts["running averages"] = nbytes(state.ema)
    return parts


def _training(plan: Plan) -> Iterator[Step]:
    arrays = plan.inputs.shapes()
    size = on_each_device(arrays)
    ahead = AHEAD * size if plan.dataset.streamed else 0
    phases = {phase.mode: phase for phase in plan.family.phases(plan.resolved.total_steps)}
    for mode, phase in phases.items():
        yield Step(
            f"train:{mode}" if len(phases) > 1 else "train",
            lambda phase=phase: executable.lower(plan, phase, arrays)[0],  # type: ignore[misc]
            plan.config.batch_size,
            6.0 * _macs(plan, plan.dataset.image_shape),
            {**_state(plan), "input": size + ahead},
            ahead,
            nbytes(plan.abstract_state().params),
        )


def _evaluation(plan: Plan) -> Iterator[Step]:
    state, batch = plan.abstract_state(), plan.evaluation_shapes()
    resident = 0 if plan.dataset.streamed else on_each_device(plan.inputs.shapes())
    evaluator = evaluate.Evaluator(plan.family, plan.config.seed)
    parts = {**_state(plan), "input": on_each_device(batch) + resident}
    own = nbytes((state.averaged, state.extra)) + on_each_device(batch)
    for mode in plan.family.eval_modes():
        yield Step(
            f"eval:{mode}" if mode else "eval",
            lambda mode=mode: evaluator.lower(mode, state.averaged, state.extra, batch),  # type: ignore[misc]
            len_of(batch),
            2.0 * _macs(plan, batch["image"].shape[1:]),
            parts,
            sum(parts.values()) - own,
            nbytes(state.params),
        )


def len_of(batch: dict[str, jax.ShapeDtypeStruct]) -> int:
    """Examples of a batch."""
    return batch["label"].shape[0]

"""Runs that exist: their network restored, and evaluated."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from ml_collections import ConfigDict

from branchnets import data
from branchnets.engine.checkpoint import Checkpoints
from branchnets.engine.evaluate import Evaluator
from branchnets.engine.rundir import RunDir
from branchnets.engine.setup import EvalSetup, prepare_evaluation
from branchnets.engine.state import TrainState
from branchnets.errors import ConfigError, RunDirError


def evaluate_run(
    run_dir: RunDir, config: ConfigDict, checkpoint: str = "latest"
) -> tuple[dict[str, Any], str, int]:
    """Evaluates a checkpoint of a run; writes nothing.

    Args:
      run_dir: of the run.
      config: its config, with overrides such as another data set, whose images are normalised as
        the run's own were.
      checkpoint: ``"latest"``, ``"best"`` or a step.

    Returns:
      (metrics on ``config.eval.split``, by default the test split; that split; the step).
    """
    trained = run_dir.config()
    if trained.data != config.data:
        _check_fits(trained, config)
    setup, state, step = restore_run(run_dir, config, checkpoint)
    dataset = setup.dataset
    own = run_dir.derived().get("data", {})
    dataset = dataclasses.replace(
        dataset,
        mean=tuple(own.get("mean", dataset.mean)),
        std=tuple(own.get("std", dataset.std)),
    )
    setup = dataclasses.replace(setup, dataset=dataset)
    split = config.eval.split or "test"
    evaluator = Evaluator(setup.family, config.seed)
    metrics = evaluator(state.variables, state.extra, setup.evaluation_input(split))
    return metrics, split, step


def restore_run(
    run_dir: RunDir,
    config: ConfigDict,
    checkpoint: str = "latest",
    devices: list[jax.Device] | None = None,
) -> tuple[EvalSetup, TrainState, int]:
    """(setup, state without optimiser, step) of a run; nothing is written or renamed.

    Args:
      run_dir: of the run.
      config: its config, overrides included.
      checkpoint: ``"latest"``, ``"best"`` or a step.
      devices: to restore onto; all by default.

    Raises:
      UserError: no such checkpoint, or one that cannot be read.
    """
    setup = prepare_evaluation(config, devices)
    metric = config.checkpoint.best_metric
    with Checkpoints(run_dir.checkpoints, read_only=True, best_metric=metric) as checkpoints:
        step = _step(checkpoints, checkpoint)
        restored = checkpoints.restore(setup.abstract_state(), step, partial=True)
    if restored is None:
        raise RunDirError(f"{run_dir.path} has no checkpoint yet; train there first.")
    return setup, *restored


def _step(checkpoints: Checkpoints, checkpoint: str) -> int | None:
    if checkpoint == "latest":
        return None
    if checkpoint == "best":
        return checkpoints.best_step()
    if not checkpoint.isdecimal():
        raise ConfigError(f"--checkpoint is latest, best or a step, not {checkpoint!r}.")
    return int(checkpoint)


def _check_fits(trained: ConfigDict, given: ConfigDict) -> None:
    """Refuses a data set that the network of a run cannot be given, before anything is read."""
    own, other = data.spec(None, trained.data), data.spec(None, given.data)
    if own.num_classes != other.num_classes:
        raise ConfigError(
            f"the run was trained for the {own.num_classes} classes of {trained.data.name}; "
            f"{given.data.name} has {other.num_classes}, so its labels mean something else."
        )
    if own.image_shape == other.image_shape:
        return
    same_channels = own.image_shape[2:] == other.image_shape[2:]
    hint = f" --config.data.image_size={own.image_shape[0]} resizes." if same_channels else ""
    raise ConfigError(
        f"the run was trained on images of shape {own.image_shape}; those of "
        f"{given.data.name} are {other.image_shape}.{hint}"
    )

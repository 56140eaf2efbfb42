"""Runs that exist: their network restored, to be evaluated, studied or taken apart."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import flax.linen as nn
import jax
from ml_collections import ConfigDict

from branchnets import data
from branchnets.engine import config as configs
from branchnets.engine.evaluate import Evaluator
from branchnets.engine.fits import check_fits, check_names, trained_spec
from branchnets.engine.records.logging import read_metrics
from branchnets.engine.records.rundir import RunDir
from branchnets.engine.reestimate import reestimated
from branchnets.engine.saving.checkpoint import Checkpoints
from branchnets.engine.setup import EvalSetup, normalised_as, prepare_evaluation
from branchnets.engine.state import TrainState
from branchnets.errors import ConfigError, RunDirError
from branchnets.families.base import Family
from branchnets.families.study import Subject, silent
from branchnets.storage import AnyPath, as_path


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that exists: its network with the weights of a checkpoint, and its data.

    Attributes:
      run_dir: where it is.
      setup: config, data (normalised as in training), family and mesh.
      state: without optimiser.
      step: of the checkpoint.

    Example:
      >>> import branchnets
      >>> run = branchnets.load_run("runs/coded_digits")          # doctest: +SKIP
      >>> run.model.apply(run.variables, images).logits           # doctest: +SKIP
    """

    run_dir: RunDir
    setup: EvalSetup
    state: TrainState
    step: int

    @property
    def path(self) -> AnyPath:
        """Its directory."""
        return self.run_dir.path

    @property
    def config(self) -> ConfigDict:
        """As the run was started, overrides included."""
        return self.setup.config

    @property
    def family(self) -> Family:
        """The method, with its network."""
        return self.setup.family

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self.setup.family.model

    @property
    def variables(self) -> dict[str, Any]:
        """The weights to use the network with, as ``model.apply`` takes them."""
        return self.state.averaged

    @property
    def dataset(self) -> data.Dataset:
        """Its data in host memory; ``mean`` and ``std`` are those the network was trained with."""
        return self.setup.dataset

    @property
    def content_shape(self) -> tuple[int, int, int]:
        """(H, W, C) that an image is made to fit before zeros surround it or its middle is taken.

        Of streamed images, whose middle is taken (``eval.crop_fraction``), with whole pixels around
        it, as many on every side.
        """
        config, shape = self.config, self.dataset.image_shape
        if self.dataset.streamed:
            around = (1 / config.eval.crop_fraction - 1) / 2  # of a side
            height, width = (side + 2 * round(side * around) for side in shape[:2])
            return height, width, shape[2]
        framed = any(config.data.get(name) is not None for name in ("pad_to", "crop_size"))
        return data.content_shape(config.data) if framed else shape

    def evaluate(
        self, split: str = "test", track: Callable[..., Iterable[Any]] = silent
    ) -> dict[str, Any]:
        """Every metric of the family on a split: a float, or an array for metrics with axes.

        Args:
          split: of the data set.
          track: shows progress; see :class:`branchnets.families.study.Subject`.
        """
        evaluator = Evaluator(self.family, self.config.seed)
        batches = self.setup.evaluation_input(split)
        title = f"evaluation on {split} images"
        return evaluator(
            self.variables, self.state.extra, batches, lambda all_: track(all_, title, len(batches))
        )

    def reestimated(self, batches: int) -> Run:
        """The same network with the batch-norm statistics of training batches, in memory alone.

        The weights stay as they are; the batches, augmented as in training, are those that the run
        would have gone on with.

        Args:
          batches: how many.

        Raises:
          UserError: a training batch that these devices cannot share, or no batch norm.
        """
        setup, config = self.setup, self.config
        configs.validate(config, setup.mesh.size)
        with contextlib.closing(data.train_input(self.dataset, config, setup.mesh)) as inputs:
            resolved = configs.resolve(config, steps_per_epoch=inputs.steps_per_epoch)
            state = reestimated(setup, self.state, inputs, resolved.total_steps, batches)
        return dataclasses.replace(self, state=state)

    def subject(
        self,
        outside: data.Split | None = None,
        outside_name: str = "",
        track: Callable[..., Any] = silent,
        **options: Any,
    ) -> Subject:
        """What the family's analyses and its slimming are given.

        Args:
          outside: out-of-distribution images of this network's shape.
          outside_name: what they are.
          track: shows progress; see :class:`branchnets.families.study.Subject`.
          **options: of the analyses.
        """
        spec = self.dataset.spec
        return Subject(
            variables=self.variables,
            extra=self.state.extra,
            image_shape=spec.image_shape,
            class_names=tuple(spec.class_names),
            dataset=self.dataset.name,
            examples=self.setup.evaluation_input,
            outside=None if outside is None else self.setup.batches(outside),
            outside_name=outside_name,
            options=options,
            seed=self.config.seed,
            batch_size=self.config.batch_size,
            track=track,
            history=self.history,
        )

    def save_weights(self, file: str | AnyPath) -> AnyPath:
        """Writes :attr:`variables` as safetensors, by name; a config's ``init.source`` takes them.

        Raises:
          RunDirError: it cannot be written.
        """
        from branchnets.deploy import weights

        path = as_path(file)
        try:
            path.write_bytes(weights.to_bytes(jax.device_get(self.variables)))
        except OSError as error:
            raise RunDirError(f"{path} cannot be written: {error.strerror}.") from error
        return path

    def history(self) -> list[dict[str, Any]]:
        """The lines of its metrics.jsonl, oldest first; none where there is no such file."""
        file = self.path / "metrics.jsonl"
        return read_metrics(file) if file.is_file() else []


def load_run(
    path: str | AnyPath,
    checkpoint: str = "latest",
    *,
    config: ConfigDict | None = None,
    devices: list[jax.Device] | None = None,
) -> Run:
    """Loads a run directory; nothing is written or renamed.

    Args:
      path: the run directory.
      checkpoint: ``"latest"``, ``"best"`` or a step.
      config: the run's own with overrides, such as another data set of the same classes, normalised
        as the run's own was; None is the run's own.
      devices: to restore onto; all by default.

    Raises:
      UserError: no run there, no such checkpoint, one that cannot be read, or a data set that the
        network cannot be given.
    """
    run_dir = RunDir(path, write=False)
    trained = run_dir.config()
    config = trained if config is None else config
    if config.ema.decay and not trained.ema.decay:
        raise ConfigError("the run kept no running averages of its weights; leave ema.decay out.")
    if trained.data != config.data:
        check_fits(trained_spec(run_dir, trained), trained, config)
    setup, state, step = _restore(run_dir, config, checkpoint, devices)
    own = run_dir.derived().get("data", {})
    dataset = normalised_as(setup.dataset, own)
    if (size := config.eval.image_size) is not None and "mean" in own:
        given = trained_spec(run_dir, trained).image_shape[0]
        mean = data.resized_mean(dataset.mean, given, size)
        dataset = dataclasses.replace(dataset, mean=mean)
    return Run(run_dir, dataclasses.replace(setup, dataset=dataset), state, step)


def _restore(
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
      UserError: other classes than the run's, no such checkpoint, or one that cannot be read.
    """
    trained_shape = None
    if config.eval.image_size is not None:
        trained_shape = trained_spec(run_dir, run_dir.config()).image_shape
    setup = prepare_evaluation(config, devices, trained_shape)
    check_names(run_dir, setup.dataset)
    metric = config.checkpoint.best_metric
    with Checkpoints(run_dir.checkpoints, read_only=True, best_metric=metric) as checkpoints:
        step = checkpoint_step(checkpoints, checkpoint)
        restored = checkpoints.restore(setup.abstract_state(), step, partial=True)
    if restored is None:
        raise RunDirError(f"{run_dir.path} has no checkpoint yet; train there first.")
    return setup, *restored


def checkpoint_step(
    checkpoints: Checkpoints, checkpoint: str, flag: str = "--checkpoint"
) -> int | None:
    """The step that is meant, None for the newest; raises ConfigError on other words."""
    if checkpoint == "latest":
        return None
    if checkpoint == "best":
        return checkpoints.best_step()
    if not checkpoint.isdecimal():
        raise ConfigError(f"{flag} is latest, best or a step, not {checkpoint!r}.")
    return int(checkpoint)

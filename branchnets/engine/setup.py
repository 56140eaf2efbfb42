"""Everything a config stands for: data, network, optimiser, mesh.  Every mode builds it once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from branchnets import data, families
from branchnets.engine import budget, memory, optim
from branchnets.engine import config as configs
from branchnets.engine import mesh as meshes
from branchnets.engine import state as states
from branchnets.engine.state import TrainState
from branchnets.families.base import Family


@dataclasses.dataclass(frozen=True)
class EvalSetup:
    """What is needed to evaluate a network.

    Attributes:
      config: as given, overrides included.
      dataset: in host memory.
      family: with its network.
      mesh: the devices.
    """

    config: ConfigDict
    dataset: data.Dataset
    family: Family
    mesh: Mesh

    def evaluation_input(self, split: str) -> data.EvalBatches:
        """The batches of a split; raises DataError where there is none of that name."""
        return self.batches(self.dataset.split(split))

    def batches(self, split: data.Split | data.StreamedSplit) -> data.EvalBatches:
        """The batches of any images of the network's shape, normalised as the data set's are."""
        batch_size = self.config.eval.batch_size or self.config.batch_size
        # Padding is masked out, so rounding the batch up to the devices changes no figure.
        batch_size = -(-batch_size // self.mesh.size) * self.mesh.size
        return data.eval_input(split, self.dataset, self.config, batch_size, self.mesh)

    def abstract_state(self) -> TrainState:
        """Shapes and shardings of the state, for restoring a checkpoint into."""
        return meshes.abstract(jax.eval_shape(self._create), self.mesh)

    def _create(self) -> TrainState:
        """A state without optimiser."""
        return self._new_state({})

    def _new_state(
        self,
        optimizers: dict[str, optax.GradientTransformation],
        given: Mapping[str, jax.Array] | None = None,
    ) -> TrainState:
        shape, seed = self.dataset.image_shape, self.config.seed
        averaged = self.config.ema.decay > 0
        return states.create(self.family, optimizers, shape, seed, given, averaged=averaged)


@dataclasses.dataclass(frozen=True)
class Setup(EvalSetup):
    """What is needed to train a network.

    Attributes:
      inputs: the training input.
      resolved: values derived from the config.
      rate: the learning rate as a function of the step.
      optimizers: one for every trainable collection.
      needs: the memory that there was before the data was put on the devices, and its size.
    """

    inputs: data.TrainInput
    resolved: configs.Resolved
    rate: optax.Schedule
    optimizers: dict[str, optax.GradientTransformation]
    needs: budget.Budget

    def init_state(self, given: Mapping[str, jax.Array] | None = None) -> TrainState:
        """The state before the first step, on the mesh.

        Args:
          given: variables to begin with, by name; see :func:`branchnets.engine.state.create`.
        """
        make = jax.jit(self._create, out_shardings=meshes.replicated(self.mesh))
        return make(dict(given or {}))

    def _create(self, given: Mapping[str, jax.Array] | None = None) -> TrainState:
        return self._new_state(self.optimizers, given)

    @property
    def validation_split(self) -> str:
        """The split that is evaluated during training."""
        default = "validation" if "validation" in self.dataset.splits else "test"
        return self.config.eval.split or default

    def derived(self) -> dict[str, Any]:
        """What follows from the config, for config.json: numbers, and what the network is given."""
        dataset = self.dataset
        return {
            **self.resolved.as_dict(),
            "data": {
                "image_shape": dataset.image_shape,
                "class_names": dataset.class_names,
                "mean": dataset.mean,
                "std": dataset.std,
                **({"decoder": self.inputs.decoder} if dataset.streamed else {}),
            },
        }


def prepare(config: ConfigDict, devices: list[jax.Device] | None = None) -> Setup:
    """Builds what training needs.

    Args:
      config: overrides included.
      devices: to use; all by default.

    Raises:
      UserError: a config that cannot run; the message says what to change.
    """
    mesh = meshes.make_mesh(devices)
    configs.validate(config, mesh.size)
    evaluated = _prepare(config, mesh)
    dataset, family = evaluated.dataset, evaluated.family
    needs = budget.data(dataset, memory.free(mesh))
    needs.check()
    inputs = data.train_input(dataset, config, mesh)
    resolved = configs.resolve(config, steps_per_epoch=inputs.steps_per_epoch)
    rate = optim.schedule(config, resolved)
    optimizers = {
        collection: family.optimizer(collection, optim.optimizer(config, rate))
        for collection in family.trainable
    }
    return Setup(config, dataset, family, mesh, inputs, resolved, rate, optimizers, needs)


def prepare_evaluation(config: ConfigDict, devices: list[jax.Device] | None = None) -> EvalSetup:
    """Builds what evaluation needs; arguments and errors are those of :func:`prepare`."""
    mesh = meshes.make_mesh(devices)
    configs.validate(config, mesh.size, train=False)
    return _prepare(config, mesh)


def _prepare(config: ConfigDict, mesh: Mesh) -> EvalSetup:
    dataset = data.load(config.data)
    if config.eval.split is not None:  # now, not after the first epochs
        dataset.split(config.eval.split)
    family = families.create(config, data.spec(dataset, config.data))
    return EvalSetup(config, dataset, family, mesh)

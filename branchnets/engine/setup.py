"""Everything a config stands for: data, network, optimiser, mesh.  Every mode builds it once."""

from __future__ import annotations

import dataclasses

import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from branchnets import data, families
from branchnets.engine import config as configs
from branchnets.engine import mesh as meshes
from branchnets.engine import optim
from branchnets.engine import state as states
from branchnets.engine.state import TrainState
from branchnets.families.base import Family


@dataclasses.dataclass(frozen=True)
class Setup:
    """What a config stands for.

    Attributes:
      config: as given, overrides included.
      dataset: in host memory.
      family: with its network.
      mesh: the devices.
      inputs: the training input.
      resolved: values derived from the config.
      rate: the learning rate as a function of the step.
      optimizers: one for every trainable collection.
    """

    config: ConfigDict
    dataset: data.Dataset
    family: Family
    mesh: Mesh
    inputs: data.ResidentInput
    resolved: configs.Resolved
    rate: optax.Schedule
    optimizers: dict[str, optax.GradientTransformation]

    def init_state(self) -> TrainState:
        """The state before the first step, on the mesh."""
        make = jax.jit(self._create, out_shardings=meshes.replicated(self.mesh))
        return make()

    def abstract_state(self) -> TrainState:
        """Shapes and shardings of the state, for restoring a checkpoint into."""
        return meshes.abstract(jax.eval_shape(self._create), self.mesh)

    def _create(self) -> TrainState:
        shape = self.dataset.image_shape
        return states.create(self.family, self.optimizers, shape, self.config.seed)

    def evaluation_input(self, split: str, dataset: data.Dataset | None = None) -> data.EvalInput:
        """The batches of a split, of the config's data set or of another one."""
        dataset = dataset or self.dataset
        # Padding is masked out, so rounding the batch up to the devices changes no figure.
        batch_size = -(-self.resolved.eval_batch_size // self.mesh.size) * self.mesh.size
        return data.EvalInput(dataset.split(split), dataset, batch_size, self.mesh)

    def validation_split(self) -> str:
        """The split that is evaluated during training."""
        chosen = self.config.eval.split
        if chosen is None:
            return "validation" if "validation" in self.dataset.splits else "test"
        return chosen


def prepare(config: ConfigDict, devices: list[jax.Device] | None = None) -> Setup:
    """Builds what a config stands for.

    Args:
      config: overrides included.
      devices: to use; all by default.

    Raises:
      ConfigError, ValueError: a config that cannot run; the message says what to change.
    """
    mesh = meshes.make_mesh(devices)
    configs.validate(config, mesh.size)
    dataset = data.load(config.data)
    family = families.create(config, data.spec(dataset, config.data))
    inputs = data.ResidentInput(
        dataset.split("train"), dataset, config.augment, config.batch_size, config.seed, mesh
    )
    resolved = configs.resolve(config, steps_per_epoch=inputs.steps_per_epoch)
    rate = optim.schedule(config, resolved)
    optimizers = {
        collection: family.optimizer(collection, optim.optimizer(config, rate))
        for collection in family.trainable
    }
    return Setup(config, dataset, family, mesh, inputs, resolved, rate, optimizers)

"""Everything a config stands for: data, network, optimiser, mesh.  Every mode builds it once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from branchnets import data, families, memory
from branchnets.engine import budget, optim
from branchnets.engine import config as configs
from branchnets.engine import mesh as meshes
from branchnets.engine import state as states
from branchnets.engine.state import TrainState
from branchnets.errors import first_line
from branchnets.families.base import Family


@dataclasses.dataclass(frozen=True)
class EvalSetup:
    """What is needed to evaluate a network.

    Attributes:
      config: as given, overrides included; where images are evaluated at a size of their own, its
        data is of that size.
      dataset: in host memory, or streamed.
      family: with its network.
      mesh: the devices.
    """

    config: ConfigDict
    dataset: data.Dataset
    family: Family
    mesh: Mesh

    def evaluation_input(self, split: str) -> data.EvalBatches:
        """The batches of a split; raises DataError where there is none of that name."""
        return self.batches(self._evaluated.split(split))

    def batches(self, split: data.Split | data.StreamedSplit) -> data.EvalBatches:
        """The batches of any images of the network's shape, normalised as the data set's are."""
        batch_size = self._eval_batch_size
        return data.eval_input(split, self._evaluated, self.config, batch_size, self.mesh)

    def evaluation_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes, dtypes and shardings of a batch of :meth:`evaluation_input`."""
        shape, size = self.dataset.image_shape, self.config.eval.image_size
        if size is not None:
            shape = (size, size, shape[2])
        return data.eval_shapes(shape, self._eval_batch_size, self.mesh)

    @property
    def _eval_batch_size(self) -> int:
        """Padding is masked out, so rounding it up to the devices changes no figure."""
        batch_size = self.config.eval.batch_size or self.config.batch_size
        return -(-batch_size // self.mesh.size) * self.mesh.size

    @property
    def _evaluated(self) -> data.Dataset:
        """What is evaluated."""
        return self.dataset

    def abstract_state(self) -> TrainState:
        """Shapes and shardings of the state, for restoring a checkpoint into."""
        return self._abstract_state

    @functools.cached_property
    def _abstract_state(self) -> TrainState:
        # Once: it traces the whole network, and a start asks for it again and again.
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
class Plan(EvalSetup):
    """What a training step is made of: it can be compiled, where data and devices are not here too.

    Attributes:
      inputs: the training input, or what of it a step needs.
      resolved: values derived from the config.
      rate: the learning rate as a function of the step.
      optimizers: one for every trainable collection.
    """

    inputs: data.TrainBatches
    resolved: configs.Resolved
    rate: optax.Schedule
    optimizers: dict[str, optax.GradientTransformation]

    def _create(self, given: Mapping[str, jax.Array] | None = None) -> TrainState:
        return self._new_state(self.optimizers, given)


@dataclasses.dataclass(frozen=True)
class Setup(Plan):
    """What is needed to train a network.

    Attributes:
      inputs: the training input.
      needs: the memory that there was before the data was put on the devices, and its size.
      resized: what is evaluated, where it is of another size than what is trained on.
    """

    inputs: data.TrainInput
    needs: budget.Budget
    resized: data.Dataset | None = None

    @property
    def _evaluated(self) -> data.Dataset:
        return self.dataset if self.resized is None else self.resized

    def init_state(self, given: Mapping[str, jax.Array] | None = None) -> TrainState:
        """The state before the first step, on the mesh.

        Args:
          given: variables to begin with, by name; see :func:`branchnets.engine.state.create`.
        """
        make = jax.jit(self._create, out_shardings=meshes.replicated(self.mesh))
        return make(dict(given or {}))

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
                "train": data.identity(dataset.split("train")),
                **({"decoder": self.inputs.decoder} if dataset.streamed else {}),
            },
        }


def prepare(
    config: ConfigDict,
    devices: list[jax.Device] | None = None,
    own: Mapping[str, Any] | None = None,
) -> Setup:
    """Builds what training needs.

    Args:
      config: overrides included.
      devices: to use; all by default.
      own: of a run that goes on, "data" of what it derived: images are normalised as they were.

    Raises:
      UserError: a config that cannot run; the message says what to change.
    """
    mesh = meshes.make_mesh(devices)
    configs.validate(config, mesh.size)
    evaluated = _prepare(config, mesh)
    dataset, family = normalised_as(evaluated.dataset, own or {}), evaluated.family
    needs = budget.data(dataset, budget.agreed(memory.free(mesh)))
    needs.check()
    resized = _resized(config, dataset, family)
    inputs = data.train_input(dataset, config, mesh)
    derived = _derived(config, family, inputs.steps_per_epoch)
    return Setup(config, dataset, family, mesh, inputs, *derived, needs, resized)


def outline(config: ConfigDict, devices: list[jax.Device]) -> Plan:
    """What :func:`prepare` builds of the training step, of data and devices that need not be here.

    Args:
      config: overrides included.
      devices: to compile for.

    Raises:
      UserError: a config that cannot run on them; the message says what to change.
    """
    mesh = meshes.make_mesh(devices)
    configs.validate(config, mesh.size)
    dataset = data.outline(config.data)
    family = families.create(config, data.spec(dataset, config.data))
    inputs = data.train_batches(dataset, config, mesh)
    derived = _derived(config, family, inputs.steps_per_epoch)
    return Plan(config, dataset, family, mesh, inputs, *derived)


def _derived(
    config: ConfigDict, family: Family, steps_per_epoch: int
) -> tuple[configs.Resolved, optax.Schedule, dict[str, optax.GradientTransformation]]:
    """What follows from a config: values, the learning rate, and the optimisers."""
    resolved = configs.resolve(config, steps_per_epoch=steps_per_epoch)
    rate = optim.schedule(config, resolved)
    optimizers = {
        collection: family.optimizer(collection, optim.optimizer(config, rate))
        for collection in family.trainable
    }
    return resolved, rate, optimizers


def prepare_evaluation(
    config: ConfigDict,
    devices: list[jax.Device] | None = None,
    trained_shape: tuple[int, int, int] | None = None,
) -> EvalSetup:
    """Builds what evaluation needs; all data is of the size that is evaluated.

    Args:
      config, devices: as of :func:`prepare`, which raises the same errors.
      trained_shape: (H, W, C) of what the network was trained on; None: as the config says.
    """
    mesh = meshes.make_mesh(devices)
    configs.validate(config, mesh.size, train=False)
    size = config.eval.image_size
    if size is None:
        return _prepare(config, mesh)
    changed = config.copy_and_resolve_references()
    changed.data = data.at_size(config.data, size)
    setup = _prepare(changed, mesh)
    shape = trained_shape or data.spec(None, config.data).image_shape
    _check_takes(config, setup.family, shape, setup.dataset.image_shape)
    return setup


def normalised_as(dataset: data.Dataset, own: Mapping[str, Any]) -> data.Dataset:
    """The data set with the "mean" and "std" that a run has kept, as far as it has."""
    mean = data.as_mean(own["mean"]) if "mean" in own else dataset.mean
    return dataclasses.replace(dataset, mean=mean, std=tuple(own.get("std", dataset.std)))


def _resized(config: ConfigDict, dataset: data.Dataset, family: Family) -> data.Dataset | None:
    """What a training run evaluates, where that is of another size and is not streamed."""
    size = config.eval.image_size
    given = dataset.image_shape
    if size is None or (size, size) == given[:2]:
        return None
    _check_takes(config, family, given, (size, size, given[2]))
    if dataset.streamed:
        return None  # decoded at the size that it is asked for
    changed = data.at_size(config.data, size)
    changed.per_pixel_mean = False  # it is that of the images trained on, at this size
    found = data.load(changed, only={"validation", "test", config.eval.split})
    mean = data.resized_mean(dataset.mean, given[0], size)
    return dataclasses.replace(found, mean=mean, std=dataset.std)


def _check_takes(
    config: ConfigDict,
    family: Family,
    trained: tuple[int, int, int],
    shape: tuple[int, int, int],
) -> None:
    """Refuses a size of images that the network, built for another, cannot compute with."""
    trained_on, images = (jax.ShapeDtypeStruct((1, *s), "float32") for s in (trained, shape))
    variables = jax.eval_shape(family.model.init, jax.random.key(0), trained_on)
    try:
        jax.eval_shape(lambda v, x: family.model.apply(v, x, train=False), variables, images)
    except Exception as error:  # whatever a module stumbles over whose sizes do not fit
        reason = first_line(error)
        raise configs.ConfigError(
            f"eval.image_size={config.eval.image_size}: {config.model.name}, built for images of "
            f"{trained[0]}x{trained[1]}, cannot be given others ({reason}). Leave it empty."
        ) from error


def _prepare(config: ConfigDict, mesh: Mesh) -> EvalSetup:
    dataset = data.load(config.data)
    if config.eval.split is not None:  # now, not after the first epochs
        dataset.split(config.eval.split)
    family = families.create(config, data.spec(dataset, config.data))
    return EvalSetup(config, dataset, family, mesh)

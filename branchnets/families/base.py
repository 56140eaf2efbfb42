"""The contract between a family and the engine.

A family is a frozen dataclass that holds its network and the numbers of its method.  The engine
calls the hooks below and never asks which family it has.  The defaults are those of an ordinary
classifier; a family overrides what its method changes.
"""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import flax.linen as nn
import flax.struct
import jax

from branchnets.counting import describe
from branchnets.errors import UserError
from branchnets.families.objectives import (
    Batch,
    Metrics,
    cross_entropy,
    masked_mean,
    over_labels,
)
from branchnets.families.study import Analysis, Option, Panel, Reference, Slimmed, Subject

PyTree = Any
#: Takes (variables, extra, batch, key); ``batch["mask"]`` is 0 for padding.
EvalMode = Callable[[PyTree, PyTree, Batch, jax.Array], Metrics]


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of training; those of one mode share a compiled step.

    Attributes:
      name: shown in logs.
      steps: its length; the phases of a run add up to the run.
      mode: whatever the family's loss needs to know (static under jit).
    """

    name: str
    steps: int
    mode: str = "train"


@dataclasses.dataclass(frozen=True)
class Context:
    """What the loss may know besides the batch.

    Attributes:
      step: int32 scalar, traced.
      phase: static.
      key: the key of this (seed, step), and of this part of an accumulated batch; use
        :meth:`rng` for one purpose.
      step_key: the key of this (seed, step), the same in every part; ``key`` where there is one.
    """

    step: jax.Array
    phase: Phase
    key: jax.Array
    step_key: jax.Array | None = None

    def rng(self, purpose: str) -> jax.Array:
        """A key that is a function of (seed, step, purpose)."""
        return purpose_key(self.key, purpose)

    def step_rng(self, purpose: str) -> jax.Array:
        """A key like :meth:`rng`'s for what is drawn once a step, however it is computed."""
        return purpose_key(self.key if self.step_key is None else self.step_key, purpose)


def purpose_key(key: jax.Array, purpose: str) -> jax.Array:
    """Folds a name into a key, so that no two uses share random numbers."""
    return jax.random.fold_in(key, zlib.crc32(purpose.encode()))


@flax.struct.dataclass
class Aux:
    """What a loss returns beside its terms.

    Attributes:
      metrics: (sum, count) pairs over the batch.
      mutated: the collections that the forward pass changed, such as ``batch_stats``.
      extra: whatever ``after_update`` needs.
    """

    metrics: Metrics
    mutated: Mapping[str, PyTree]
    extra: PyTree = None


@dataclasses.dataclass(frozen=True)
class Family:
    """The hooks of a family; see the module docstring.

    Attributes:
      model: the network; its output has ``logits`` first.
      label_smoothing: of :meth:`class_loss`; 0 is none.
    """

    model: nn.Module
    label_smoothing: float = dataclasses.field(default=0.0, kw_only=True)
    name: ClassVar[str] = "base"
    #: What the family adds to a config: section -> field -> default; a type stands for an optional
    #: field of that type, empty by default.
    fields: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    #: The paper's names of config fields, for sweeps: ``{"p_drop": "model.drop_rate"}``.
    aliases: ClassVar[Mapping[str, str]] = {}
    #: What ``tools.sweep`` varies, one field at a time, when it is not told: name -> values.
    sweeps: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    #: Name of a swept field -> the paper's figure: ``{"mu": "fig5_mu"}``; else ``ablation_NAME``.
    sweep_figures: ClassVar[Mapping[str, str]] = {}
    #: What the figures of a sweep show.
    panels: ClassVar[tuple[Panel, ...]] = (
        Panel("Whole network", "test accuracy", ("test_accuracy",), percent=True),
    )
    #: Numbers that the paper prints for points of a sweep.
    references: ClassVar[tuple[Reference, ...]] = ()
    #: The parts of the network that have the classes in their shapes; they start anew where a
    #: trained network is given other classes.
    head: ClassVar[tuple[str, ...]] = ("head",)
    #: What :meth:`slim` can be asked for.
    slim_options: ClassVar[tuple[Option, ...]] = ()
    #: The dataclasses that make up the network, so that one can be rebuilt from its description.
    modules: ClassVar[tuple[type, ...]] = ()

    @property
    def trainable(self) -> tuple[str, ...]:
        """The variable collections that the optimiser changes."""
        return ("params",)

    @property
    def averaged(self) -> tuple[str, ...]:
        """The collections of which ``ema.decay`` keeps a running average, as far as they exist."""
        return (*self.trainable, "batch_stats")

    @classmethod
    def from_config(cls, config: Any, data_spec: Any) -> Family:
        """Builds the network and reads the family's section; raises ValueError on bad values."""
        raise NotImplementedError

    def init_extra(self, variables: PyTree) -> PyTree:
        """State of the method besides variables; one structure for the whole run."""
        del variables
        return {}

    def with_momentum(self, momentum: float) -> Family:
        """The same with another decay of the running batch statistics; 0: those of one batch."""
        return dataclasses.replace(self, model=self.model.clone(bn_momentum=momentum))

    def phases(self, total_steps: int) -> tuple[Phase, ...]:
        """The phases of a run, in order."""
        return (Phase("train", total_steps),)

    def optimizer(self, collection: str, default: Any) -> Any:
        """The optax transformation of a trainable collection; ``default`` is the config's."""
        del collection
        return default

    def class_loss(self, logits: jax.Array, batch: Batch) -> jax.Array:
        """L_class, a float32 scalar: the mean cross-entropy with smoothed and mixed labels."""
        loss = functools.partial(cross_entropy, logits, smoothing=self.label_smoothing)
        return masked_mean(over_labels(loss, batch), batch.get("mask"))

    def loss(
        self, variables: PyTree, extra: PyTree, batch: Batch, context: Context
    ) -> tuple[dict[str, jax.Array], Aux]:
        """The named terms whose sum is minimised, each a float32 scalar, and the rest."""
        raise NotImplementedError

    def after_update(self, state: Any, aux: Aux, context: Context) -> Any:
        """Projections and moving targets, after the optimiser's update; traced."""
        del aux, context
        return state

    def enter_phase(self, state: Any, phase: Phase) -> Any:
        """Changes to the state when a phase begins; no two leaves may share an array."""
        del phase
        return state

    def eval_modes(self) -> dict[str, EvalMode]:
        """The ways to evaluate; the one named ``""`` gives the run's main figures."""
        raise NotImplementedError

    def summary(self, metrics: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        """What a finished run says: figures for ``summary.json``, and text for the terminal.

        Args:
          metrics: name -> sum / count on the test split, as numpy arrays or floats.
        """
        del metrics
        return {}, ""

    def analyses(self) -> Mapping[str, Analysis]:
        """What a report of a finished run shows, by short name, in order."""
        return {}

    def merits(self, subject: Subject) -> dict[str, float]:
        """Figures of a finished run that take more than one pass to get; ``tools.sweep`` draws
        them beside the accuracy."""
        del subject
        return {}

    def take_out(
        self, variables: Mapping[str, PyTree], **request: Any
    ) -> tuple[nn.Module, PyTree, str]:
        """The smaller network that :meth:`slim` gives, without data: a function of the weights.

        Args:
          variables: of the full network, all collections.
          **request: those of :attr:`slim_options` that say what is taken out.

        Returns:
          Its module, its variables, and in a few words what it is.

        Raises:
          UserError: a family whose networks have nothing to take out, or a bad request.
        """
        del variables, request
        raise self._nothing_to_take_out()

    def slim(self, subject: Subject, **request: Any) -> Slimmed:
        """Takes a smaller network out of a trained one.

        Args:
          subject: the trained network, with its data.
          **request: values of :attr:`slim_options`.

        Raises:
          UserError: as :meth:`take_out`.
        """
        del subject, request
        raise self._nothing_to_take_out()

    def _nothing_to_take_out(self) -> UserError:
        return UserError(
            f"a network of family {self.name!r} has no branches with a meaning, so there is "
            "nothing to take out of it; slim a run of another family."
        )

    def layer_macs(self, model: nn.Module, image_shape: tuple[int, int, int]) -> int:
        """Multiply-adds of one image in convolutions and linear layers alone, as papers count.

        Args:
          model: of this family, or taken out of one that is.
          image_shape: (H, W, C).
        """
        return describe(model, image_shape).macs

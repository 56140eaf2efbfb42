"""Training a MaskConnect network: learn the masks with the weights, freeze them, fine-tune."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from branchnets import counting
from branchnets.errors import ConfigError, unknown
from branchnets.families import base, objectives
from branchnets.families.maskconnect import ablations, connectivity, masks
from branchnets.families.maskconnect.model import MaskConnectNet, ModuleSpec
from branchnets.families.maskconnect.plan import check_plan, read_plan
from branchnets.families.maskconnect.prune import (
    describe_pruned,
    layer_macs,
    prune_model,
    prune_network,
)
from branchnets.families.plain.resnet import BlockSpec, ResNet
from branchnets.families.study import Analysis, Panel, Reference, Slimmed, Subject
from branchnets.registry import build_from_config


@dataclasses.dataclass(frozen=True)
class MaskConnectFamily(base.Family):
    """L = L_class, over the weights and the masks (Algorithm 1).

    The masks are a collection of their own.  In a phase of mode "learn" they are drawn from and
    updated; entering a phase of mode "tune" writes their K largest entries as 0 and 1 into the same
    array, which then stays.  The momentum of the weights goes on.  "real" never freezes.

    Differs: `real`, which the paper tried without saying how, uses the masks normalised, as they
    are drawn from otherwise.

    Attributes:
      image_shape: (H, W, C), for which operations are counted.
      connectivity: one of :data:`branchnets.families.maskconnect.zoo.CONNECTIVITIES`.
      plan: (mode, epochs) of every phase.
      mask_learning_rate: of the plain SGD on the masks.
    """

    model: Any  # MaskConnectNet, or ResNet where connectivity is "full"
    image_shape: tuple[int, int, int]
    connectivity: str = "learned"
    plan: tuple[tuple[str, float], ...] = (("learn", 1.0),)
    mask_learning_rate: float = 0.2
    name: ClassVar[str] = "maskconnect"
    aliases: ClassVar[Mapping[str, str]] = ablations.ALIASES
    sweeps: ClassVar[Mapping[str, tuple[Any, ...]]] = ablations.SWEEPS
    sweep_figures: ClassVar[Mapping[str, str]] = ablations.FIGURES
    panels: ClassVar[tuple[Panel, ...]] = ablations.PANELS
    references: ClassVar[tuple[Reference, ...]] = ablations.REFERENCES
    modules: ClassVar[tuple[type, ...]] = (MaskConnectNet, ModuleSpec, ResNet, BlockSpec)
    fields: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "model": {
            "connectivity": "learned",
            "fan_in": int,
            "aggregate": "sum",
            "depths": tuple,
            "branches": int,
            "width": int,
            "channels": int,
            "stem_channels": int,
            "head_bias": bool,
            "bn_momentum": float,
        },
        "maskconnect": {"phases": (("learn", 1.0),), "mask_learning_rate": 0.2},
    }

    @classmethod
    def from_config(cls, config: Any, data_spec: Any) -> MaskConnectFamily:
        kind = config.model.connectivity
        model = build_from_config(config, data_spec)
        plan = read_plan(config.maskconnect.phases)
        check_plan(plan, config.epochs)
        if kind not in ("learned", "real"):
            plan = (("tune", float(config.epochs)),)  # nothing to learn
        rate = config.maskconnect.mask_learning_rate
        if not 0 < rate < math.inf:
            raise ConfigError(
                f"maskconnect.mask_learning_rate is {rate}; it must be a number above 0. For "
                "connections that are not learned: model.connectivity='random'"
            )
        shape = tuple(data_spec.image_shape)
        return cls(model, shape, connectivity=kind, plan=plan, mask_learning_rate=float(rate))

    @property
    def trainable(self) -> tuple[str, ...]:
        return ("params", "masks") if self.has_masks else ("params",)

    @property
    def averaged(self) -> tuple[str, ...]:
        # Not the masks: the K largest of an average need not be those of any mask there ever was,
        # and frozen masks are 0 and 1.
        return ("params", "batch_stats")

    @property
    def has_masks(self) -> bool:
        """Whether the network has a collection of masks; a ResNeXt or a pruned one has none."""
        return isinstance(self.model, MaskConnectNet) and self.model.is_learned()

    def phases(self, total_steps: int) -> tuple[base.Phase, ...]:
        epochs = sum(length for _, length in self.plan)
        ends, passed = [], 0.0
        for _, length in self.plan:
            passed += length
            ends.append(round(total_steps * passed / epochs))
        starts = [0, *ends[:-1]]
        for (mode, length), start, end in zip(self.plan, starts, ends, strict=True):
            if start == end:  # it would be passed over, and the masks perhaps never frozen
                raise ConfigError(
                    f"maskconnect.phases: {mode} lasts {length:g} epochs, which is no step at "
                    f"all ({total_steps / epochs:g} steps make an epoch); make it longer or "
                    "leave it out"
                )
        return tuple(
            base.Phase(f"{mode}{i}", end - start, mode)
            for i, ((mode, _), start, end) in enumerate(zip(self.plan, starts, ends, strict=True))
        )

    def optimizer(self, collection: str, default: Any) -> Any:
        return optax.sgd(self.mask_learning_rate) if collection == "masks" else default

    def init_extra(self, variables: base.PyTree) -> base.PyTree:
        """For each module its newest top-K connections, and the share of them that was new."""
        stored = variables.get("masks", {})
        return {
            "top": {name: self._top(value) for name, value in stored.items()},
            "churn": {name: jnp.zeros(()) for name in stored},
        }

    def _top(self, mask: jax.Array) -> jax.Array:
        return masks.top(mask, self.model.fan_in)

    def loss(
        self,
        variables: base.PyTree,
        extra: base.PyTree,
        batch: objectives.Batch,
        context: base.Context,
    ) -> tuple[dict[str, jax.Array], base.Aux]:
        mask = batch.get("mask")
        learning = context.phase.mode == "learn"
        if not learning and self.has_masks:
            variables = {**variables, "masks": jax.lax.stop_gradient(variables["masks"])}
        output: Any
        output, mutated = self.model.apply(
            variables,
            batch["image"],
            train=True,
            mask=mask,
            mutable=["batch_stats"],
            rngs={"masks": context.step_rng("masks")},
            **self._connect("sample" if learning else "top"),
        )
        terms = {"class": self.class_loss(output.logits, batch)}
        metrics = objectives.classification_metrics(output.logits, batch)
        one = jnp.ones(())
        for name, value in variables.get("masks", {}).items():
            metrics[f"mask_entropy/{name}"] = (jnp.mean(connectivity.entropy(value)), one)
            metrics[f"mask_churn/{name}"] = (extra["churn"][name], one)
        return terms, base.Aux(metrics, mutated)

    def _connect(self, connect: str) -> dict[str, Any]:
        if not isinstance(self.model, MaskConnectNet):
            return {}
        return {"connect": "real" if self.connectivity == "real" else connect}

    def after_update(self, state: Any, aux: base.Aux, context: base.Context) -> Any:
        if context.phase.mode != "learn" or not self.has_masks:
            return state
        updated = jax.tree.map(masks.project, state.params["masks"])
        tops = jax.tree.map(self._top, updated)
        churn = {
            name: jnp.sum(new * (1 - state.extra["top"][name])) / jnp.sum(new)
            for name, new in tops.items()
        }
        return dataclasses.replace(
            state,
            params={**state.params, "masks": updated},
            extra={"top": tops, "churn": churn},
        )

    def enter_phase(self, state: Any, phase: base.Phase) -> Any:
        if phase.mode != "tune" or self.connectivity != "learned":
            return state
        frozen = jax.tree.map(self._top, state.params["masks"])
        # Their own arrays: the step donates the state, and no buffer can be donated twice.
        extra = {
            "top": jax.tree.map(self._top, frozen),
            "churn": jax.tree.map(jnp.zeros_like, state.extra["churn"]),
        }
        return dataclasses.replace(state, params={**state.params, "masks": frozen}, extra=extra)

    def eval_modes(self) -> dict[str, base.EvalMode]:
        """The K largest connections; while they are being learned, drawn ones too."""
        if self.connectivity != "learned":
            return {"": self._evaluate("top")}
        return {"": self._evaluate("top"), "sampled": self._evaluate("sample")}

    def _evaluate(self, connect: str) -> base.EvalMode:
        def mode(
            variables: base.PyTree, extra: base.PyTree, batch: objectives.Batch, key: jax.Array
        ) -> objectives.Metrics:
            output: Any = self.model.apply(
                variables,
                batch["image"],
                train=False,
                rngs={"masks": key},
                **self._connect(connect),
            )
            metrics = objectives.evaluation_metrics(output.logits, batch)
            if connect == "top":
                one = jnp.ones(())
                for name, chosen in getattr(output, "connections", {}).items():
                    metrics[f"connections/{name}"] = (chosen, one)
            return metrics

        return mode

    def summary(self, metrics: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        found = {
            name.removeprefix("connections/"): np.rint(value)
            for name, value in metrics.items()
            if name.startswith("connections/")
        }
        if not found or self.connectivity == "real":
            return {}, ""
        modules = self.model.modules()
        alive = connectivity.alive(modules, found)
        pruned = counting.describe(prune_model(self.model, found, alive), self.image_shape)
        figures = {
            "active_branches": {name: len(kept) for name, kept in alive.items()},
            "active_share": connectivity.share(modules, alive),
            "parameters_after_pruning": pruned.parameters,
            "macs_after_pruning": pruned.macs,
        }
        return figures, connectivity.render(modules, alive)

    def analyses(self) -> Mapping[str, Analysis]:
        from branchnets.families.maskconnect import analysis  # only when asked for

        return analysis.analyses(self)

    def take_out(
        self, variables: Mapping[str, base.PyTree], **request: Any
    ) -> tuple[MaskConnectNet, base.PyTree, str]:
        """The network without the branches that nobody listens to; nothing to request."""
        small, weights, kept = self._prune(variables, request)
        return small, weights, "branches " + " ".join(str(len(found)) for found in kept.values())

    def slim(self, subject: Subject, **request: Any) -> Slimmed:
        """The pruned network of :meth:`take_out`, with what it saves."""
        return describe_pruned(self.model, subject, *self._prune(subject.variables, request))

    def _prune(
        self, variables: Mapping[str, base.PyTree], request: Mapping[str, Any]
    ) -> tuple[MaskConnectNet, base.PyTree, dict[str, np.ndarray]]:
        if request:
            raise unknown("slimming request", next(iter(request)), ())
        if not isinstance(self.model, MaskConnectNet):
            raise ConfigError(
                "connectivity 'full' is a ResNeXt: every branch is read, so there is nothing to "
                "take out. Slim a run with learned or random connectivity."
            )
        if self.connectivity == "real":
            raise ConfigError(
                "connectivity 'real' weighs every branch with a real-valued mask, so none can be "
                "taken out without a change of the function. Slim a run with learned connectivity."
            )
        return prune_network(self.model, variables)

    def layer_macs(self, model: nn.Module, image_shape: tuple[int, int, int]) -> int:
        return layer_macs(model, image_shape)

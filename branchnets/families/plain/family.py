"""Training a plain network: cross-entropy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax

from branchnets.families import base, objectives
from branchnets.registry import build_from_config


@dataclasses.dataclass(frozen=True)
class PlainFamily(base.Family):
    """L = L_class, the mean cross-entropy."""

    name: ClassVar[str] = "plain"
    fields: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # Instead of the registered network's: blocks of each stage, N, D and C of the first one.
        "model": {
            "depths": tuple,
            "branches": int,
            "width": int,
            "channels": int,
            "stem_channels": int,
            "head_bias": bool,
            "bn_momentum": float,
        },
    }

    @classmethod
    def from_config(cls, config: Any, data_spec: Any) -> PlainFamily:
        return cls(model=build_from_config(config, data_spec))

    def loss(
        self,
        variables: base.PyTree,
        extra: base.PyTree,
        batch: objectives.Batch,
        context: base.Context,
    ) -> tuple[dict[str, jax.Array], base.Aux]:
        mask = batch.get("mask")
        output: Any
        output, mutated = self.model.apply(
            variables, batch["image"], train=True, mask=mask, mutable=["batch_stats"]
        )
        terms = {"class": self.class_loss(output.logits, batch)}
        return terms, base.Aux(objectives.classification_metrics(output.logits, batch), mutated)

    def eval_modes(self) -> dict[str, base.EvalMode]:
        def full(
            variables: base.PyTree, extra: base.PyTree, batch: objectives.Batch, key: jax.Array
        ) -> objectives.Metrics:
            output: Any = self.model.apply(variables, batch["image"], train=False)
            return objectives.evaluation_metrics(output.logits, batch)

        return {"": full}

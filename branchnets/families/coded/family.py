"""Training and evaluating a Coded ResNeXt: L_tot = L_class + mu * sum_l L_code,l (Eq. 6)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from branchnets.errors import ConfigError, unknown
from branchnets.families import base, objectives
from branchnets.families.coded import ablations, codes, extract, losses, slim
from branchnets.families.coded.energy_map import render_energy_map
from branchnets.families.coded.model import CodedBlockSpec, CodedOutput, CodedResNeXt
from branchnets.families.coded.zoo import BUILDERS
from branchnets.families.study import Analysis, Option, Panel, Reference, Slimmed, Subject
from branchnets.registry import build_from_config


@dataclasses.dataclass(frozen=True)
class CodedFamily(base.Family):
    """Coded ResNeXt with a coding scheme for every coded block.

    Attributes:
      schemes: block name -> coding scheme, for every coded block of the model.
      mu: weight of the coding loss in Eq. 6.
      exponent: of the coding loss; 4 in the paper.
      threshold: dead zone of the coding loss; 0 in the paper.
      block_gradients: footnote 5: instead of a loss, inactive branches get no gradient.
    """

    model: CodedResNeXt
    schemes: Mapping[str, codes.CodingScheme]
    class_names: tuple[str, ...] = ()
    mu: float = 6.0
    exponent: float = 4.0
    threshold: float = 0.0
    block_gradients: bool = False
    name: ClassVar[str] = "coded"
    aliases: ClassVar[Mapping[str, str]] = ablations.ALIASES
    sweeps: ClassVar[Mapping[str, tuple[Any, ...]]] = ablations.SWEEPS
    sweep_figures: ClassVar[Mapping[str, str]] = ablations.FIGURES
    panels: ClassVar[tuple[Panel, ...]] = ablations.PANELS
    references: ClassVar[tuple[Reference, ...]] = ablations.REFERENCES
    slim_options: ClassVar[tuple[Option, ...]] = extract.OPTIONS
    modules: ClassVar[tuple[type, ...]] = (CodedResNeXt, CodedBlockSpec)
    #: `model.active`: N_act of every block, by stage; `coded.schemes`: names or files.
    fields: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "model": {
            "active": tuple,
            "branches": int,
            "width": int,
            "channels": int,
            "drop_rate": 0.1,
            "normalize": True,
            "aggregate": "sum",
            "stem_channels": int,
            "head_bias": bool,
            "bn_momentum": float,
        },
        "coded": {
            "mu": 6.0,
            "exponent": 4.0,
            "threshold": 0.0,
            "block_gradients": False,
            "schemes": (),
        },
    }

    @classmethod
    def from_config(cls, config: Any, data_spec: Any) -> CodedFamily:
        model = build_from_config(config, data_spec)
        section = config.coded
        if section.mu < 0 or section.exponent <= 0 or section.threshold < 0:
            raise ConfigError("coded.mu and coded.threshold must be >= 0, coded.exponent above 0")
        if not 0 <= model.drop_rate < 1:
            raise ConfigError(f"model.drop_rate is {model.drop_rate}; it must be in [0, 1)")
        return cls(
            model=model,
            schemes=block_schemes(
                model,
                config.model.get("active") or BUILDERS[config.model.name].active,
                data_spec.num_classes,
                [codes.load_scheme(name) for name in section.schemes],
            ),
            class_names=tuple(data_spec.class_names),
            mu=section.mu,
            exponent=section.exponent,
            threshold=section.threshold,
            block_gradients=section.block_gradients,
        )

    def _codewords(self, block: str) -> jax.Array:
        return jnp.asarray(self.schemes[block].codewords)

    def coding_terms(self, output: CodedOutput, batch: objectives.Batch) -> dict[str, jax.Array]:
        """Block name -> L_code of each example, [B]; of a mixed one, the mean over its labels."""

        def term(block: str, labels: jax.Array) -> jax.Array:
            return losses.coding_loss(
                output.energies[block],
                self._codewords(block)[labels],
                exponent=self.exponent,
                threshold=self.threshold,
            )

        return {
            block: objectives.over_labels(functools.partial(term, block), batch)
            for block in output.energies
        }

    def _may_learn(self, block: str, batch: objectives.Batch) -> jax.Array:
        """[B, N]: the share of an example's gradient that a branch gets (footnote 5)."""
        words = self._codewords(block).astype(jnp.float32)
        return objectives.over_labels(lambda labels: words[labels], batch)

    def loss(
        self,
        variables: base.PyTree,
        extra: base.PyTree,
        batch: objectives.Batch,
        context: base.Context,
    ) -> tuple[dict[str, jax.Array], base.Aux]:
        mask, gradient = batch.get("mask"), None
        if self.block_gradients:
            gradient = {block: self._may_learn(block, batch) for block in self.schemes}
        output: Any
        output, mutated = self.model.apply(
            variables,
            batch["image"],
            train=True,
            mask=mask,
            gradient=gradient,
            mutable=["batch_stats"],
            rngs={"drop": context.rng("drop")},
        )
        coding = self.coding_terms(output, batch)
        terms = {"class": self.class_loss(output.logits, batch)}
        if coding and not self.block_gradients:
            means = [objectives.masked_mean(v, mask) for v in coding.values()]
            terms["code"] = self.mu * jnp.sum(jnp.stack(means))
        metrics = objectives.classification_metrics(output.logits, batch)
        metrics |= {f"coding_loss/{b}": objectives.summed(v, mask) for b, v in coding.items()}
        return terms, base.Aux(metrics, mutated)

    def eval_modes(self) -> dict[str, base.EvalMode]:
        return {"": self._full}

    def _full(
        self, variables: base.PyTree, extra: base.PyTree, batch: objectives.Batch, key: jax.Array
    ) -> objectives.Metrics:
        """Accuracy of the network and of every early decoder, and the class x branch energies."""
        output: Any = self.model.apply(variables, batch["image"], train=False)
        mask, labels = batch.get("mask"), batch["label"]
        metrics = objectives.evaluation_metrics(output.logits, batch)
        metrics |= {
            f"coding_loss/{block}": objectives.summed(value, mask)
            for block, value in self.coding_terms(output, batch).items()
        }
        weights = jnp.ones(len(labels)) if mask is None else jnp.asarray(mask)
        members = jax.nn.one_hot(labels, self.model.num_classes) * weights[:, None]
        for block, energies in output.energies.items():
            predicted, _ = losses.decode(energies, self._codewords(block))
            metrics[f"early_accuracy/{block}"] = objectives.summed(predicted == labels, mask)
            metrics[f"energy_map/{block}"] = (
                jnp.einsum("bk,bn->kn", members, energies, precision="highest"),
                jnp.sum(members, axis=0)[:, None],
            )
        return metrics

    def summary(self, metrics: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        early = {block: float(metrics[f"early_accuracy/{block}"]) for block in self.schemes}
        figures: dict[str, Any] = {"early_decoding_accuracy": early}
        if not early:
            return figures, ""
        last = list(self.schemes)[-1]
        energies = np.asarray(metrics[f"energy_map/{last}"])
        figures["energy_on_code"] = {
            block: energy_on_code(metrics[f"energy_map/{block}"], scheme.codewords)
            for block, scheme in self.schemes.items()
        }
        lines = ["Accuracy of reading the class off the branch energies alone (early decoding):"]
        lines += [f"  {block:<16} {accuracy:7.2%}" for block, accuracy in early.items()]
        lines += ["", render_energy_map(energies, self.schemes[last], self.class_names, last)]
        return figures, "\n".join(lines)

    def analyses(self) -> Mapping[str, Analysis]:
        from branchnets.families.coded import analysis  # only when asked for

        return analysis.analyses(self)

    def merits(self, subject: Subject) -> dict[str, float]:
        """Binary classifiers, early decoding and specialisation, one number each."""
        from branchnets.families.coded import analysis

        return analysis.merits(self, subject)

    def take_out(
        self, variables: base.PyTree, classes: tuple[str | int, ...] = (), **request: Any
    ) -> tuple[nn.Module, base.PyTree, str]:
        """The branches of a class or of several; ``classes`` as :func:`extract.extract` has it."""
        if request:
            raise unknown("slimming request", next(iter(request)), ("classes",))
        return extract.take_out(self, variables, classes)

    def slim(
        self,
        subject: Subject,
        classes: tuple[str | int, ...] = (),
        negatives: str | int | None = None,
        **request: Any,
    ) -> Slimmed:
        """The binary classifier of a class or of several; see :func:`extract.extract`."""
        if request:
            raise unknown("slimming request", next(iter(request)), ("classes", "negatives"))
        return extract.extract(self, subject, classes, negatives)

    def layer_macs(self, model: nn.Module, image_shape: tuple[int, int, int]) -> int:
        assert isinstance(model, CodedResNeXt)
        return slim.layer_macs(model, image_shape)


def energy_on_code(energy_map: Any, codewords: np.ndarray) -> float:
    """Share of a block's energy that is in the branches that the code assigns, mean over classes.

    Args:
      energy_map: mean energies, [K, N]; classes without examples (nan) are left out.
      codewords: [K, N]; N_act / N is what an uncoded network would give.
    """
    energy_map = np.asarray(energy_map, np.float64)
    seen = np.isfinite(energy_map).all(1)
    energy_map, codewords = energy_map[seen], codewords[seen]
    shares = (energy_map * codewords).sum(1) / np.maximum(energy_map.sum(1), 1e-12)
    return float(shares.mean())


def block_schemes(
    model: CodedResNeXt,
    active: tuple[tuple[int, ...], ...],
    num_classes: int,
    chosen: Iterable[codes.CodingScheme] = (),
) -> dict[str, codes.CodingScheme]:
    """One scheme per ratio (3.2.1): block name -> scheme, for every coded block.

    Args:
      model: the network.
      active: N_act of every block, one tuple a stage.
      num_classes: K.
      chosen: schemes to use for the blocks of their N_act; for other blocks a scheme of the right
        shape is looked up.

    Raises:
      ValueError: no scheme fits a block, a chosen one does not, or none of the blocks wants it.
    """
    by_active: dict[int, codes.CodingScheme] = {}
    for scheme in chosen:
        if scheme.active in by_active:
            raise ConfigError(
                f"coding schemes {by_active[scheme.active].name} and {scheme.name} are both for "
                f"blocks of {scheme.active} active branches; a ratio has one scheme (3.2.1)"
            )
        by_active[scheme.active] = scheme
    coded = model.coded_blocks()
    schemes = {}
    for s, stage in enumerate(active):
        for b, kept in enumerate(stage):
            block = f"stage{s + 2}/block{b}"
            if block not in coded:
                continue
            branches = coded[block].branches
            if kept not in by_active:
                by_active[kept] = codes.scheme_for(num_classes, branches, kept)
            schemes[block] = by_active[kept].require(num_classes, branches, kept)
    for kept, scheme in by_active.items():
        if not any(scheme is used for used in schemes.values()):
            raise ConfigError(
                f"coding scheme {scheme.name} is for blocks of {kept} active branches; "
                f"model.active = {active} has none"
            )
    return schemes

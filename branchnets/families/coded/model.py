"""Coded ResNeXt (Avranas and Kountouris, section 3): ResNeXt with energy-normalised branches.

The module knows which blocks are coded and which of them share a drop mask.  It does not know the
codes: those belong to the loss and to the decoder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from branchnets.families.coded import energy
from branchnets.families.plain.resnet import BlockSpec, Bottleneck
from branchnets.nn.conv import Conv, he_normal_fan_out
from branchnets.nn.resnet_parts import Head, Stem, check_images

AGGREGATES = ("sum", "concat")


@dataclasses.dataclass(frozen=True)
class CodedBlockSpec(BlockSpec):
    """A block of Table 1, ``[channels, width, ratio]``.

    Attributes:
      norm_branches: N in Eq. 3, the branches of the block before anything was removed from it;
        None is an ordinary ResNeXt block (ratio N/N).
      drop_run: neighbouring coded blocks with the same number share one dropSubNN mask.
    """

    norm_branches: int | None = None
    drop_run: int = 0


@flax.struct.dataclass
class CodedOutput:
    """What a coded network returns.

    Attributes:
      logits: [B, K] float32.
      energies: block name (``"stage3/block0"``) -> E(t̄_n), the mean energies after normalisation
        and before dropping, [B, N] float32; a block's energies sum to ``norm_branches``.
      features: only where the call stopped early: the input of the block it stopped at,
        [B, H, W, C]; logits are then None.
    """

    logits: jax.Array | None
    energies: dict[str, jax.Array]
    features: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class BranchMasks:
    """Per-example factors on the branches of one coded block, each [B, N] or None.

    Attributes:
      remove: 0 for a branch that is taken out *before* the energies (analysis).
      drop: dropSubNN's inverted-dropout factors, applied after the energies.
      gradient: 0 where footnote 5 blocks the gradient.
    """

    remove: jax.Array | None = None
    drop: jax.Array | None = None
    gradient: jax.Array | None = None


class Kernel(nn.Module):
    """The parameter of a bias-free convolution, "kernel", where more than the convolution needs it.

    Returns it in ``dtype``; it is stored and initialised as :class:`branchnets.nn.conv.Conv` does.
    """

    shape: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self) -> jax.Array:
        kernel = self.param("kernel", he_normal_fan_out, self.shape, jnp.float32)
        return kernel.astype(self.dtype)


class CodedBottleneck(Bottleneck):
    """Fig. 1b: y = ReLU(shortcut(x) + BN(sum_n drop_n t̄_n)), t̄ from Eq. 3.

    With ``aggregate="sum"`` the energies are computed from Gram matrices (see
    :mod:`branchnets.families.coded.energy`).  With ``"concat"`` (section 4.3.1) each branch expands
    to floor(C/N) channels, which are concatenated and padded with zeros to C.

    Returns (y, energies [B, N] float32).
    """

    spec: CodedBlockSpec
    normalize: bool = True
    aggregate: str = "sum"

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        masks: BranchMasks = BranchMasks(),  # noqa: B008  (frozen)
        *,
        train: bool = False,
        mask: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        hidden = self.hidden(x, train, mask)
        if self.aggregate not in AGGREGATES:
            raise ValueError(f"unknown aggregate {self.aggregate!r}; use {' or '.join(AGGREGATES)}")
        aggregate = self._sum if self.aggregate == "sum" else self._concat
        aggregated, energies = aggregate(hidden, masks)
        return self.close(x, aggregated, train, mask), energies

    def _factors(self, raw: jax.Array, masks: BranchMasks) -> tuple[jax.Array, jax.Array]:
        """(factor of each branch, energies after normalisation), both [B, N] float32."""
        if masks.remove is not None:
            raw = raw * masks.remove
        factor = jnp.ones_like(raw)
        if self.normalize:
            factor = factor * energy.normaliser(raw, self.spec.norm_branches or raw.shape[-1])
        energies = raw * factor**2
        for other in (masks.remove, masks.drop):
            if other is not None:
                factor = factor * other
        return factor, energies

    def _sum(self, hidden: jax.Array, masks: BranchMasks) -> tuple[jax.Array, jax.Array]:
        kernel = Kernel((1, 1, hidden.shape[-1], self.spec.channels), self.dtype, name="expand")()

        def expand(scale: jax.Array) -> jax.Array:
            return energy.expand_scaled(hidden, scale, kernel)

        raw = (
            energy.gram_energies(hidden, energy.gram(kernel, self.spec.branches))
            / self.spec.channels
        )
        if masks.gradient is None:
            factor, energies = self._factors(raw, masks)
            return expand(factor), energies
        allowed = masks.gradient
        factor, energies = self._factors(energy.block_gradient(raw, allowed), masks)
        active = expand(factor * allowed)
        silent = expand(factor * (1 - allowed))
        return active + jax.lax.stop_gradient(silent), energies

    def _concat(self, hidden: jax.Array, masks: BranchMasks) -> tuple[jax.Array, jax.Array]:
        each, rest = divmod(self.spec.channels, self.spec.branches)
        if self.spec.norm_branches != self.spec.branches:
            raise ValueError("a block that concatenates its branches cannot be slimmed")
        outputs = Conv(
            each * self.spec.branches,
            1,
            groups=self.spec.branches,
            dtype=self.dtype,
            name="expand",
        )(hidden)
        if masks.gradient is not None:
            allowed = jnp.repeat(masks.gradient, each, axis=-1)[:, None, None, :]
            outputs = energy.block_gradient(outputs, allowed.astype(outputs.dtype))
        split = outputs.reshape(*outputs.shape[:-1], self.spec.branches, each)
        raw = jnp.mean(jnp.square(split.astype(jnp.float32)), axis=(1, 2, 4))
        factor, energies = self._factors(raw, masks)
        outputs = energy.scale_branches(outputs, factor)
        return jnp.pad(outputs, ((0, 0), (0, 0), (0, 0), (0, rest))), energies


class CodedStage(nn.Module):
    """Blocks of one feature-map size; ordinary ones where ``norm_branches`` is None.

    ``masks`` names the blocks to run: all of them, but where a call starts or stops inside.

    Returns (output, block name -> energies).
    """

    blocks: tuple[CodedBlockSpec, ...]
    normalize: bool = True
    aggregate: str = "sum"
    bn_group_size: int | None = None
    bn_momentum: float = 0.9
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        masks: Mapping[str, BranchMasks],
        *,
        train: bool = False,
        mask: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        energies = {}
        common = (self.bn_group_size, self.bn_momentum, self.dtype)
        for i, spec in enumerate(self.blocks):
            name = f"block{i}"
            if name not in masks:
                continue
            if spec.norm_branches is None:
                x = Bottleneck(spec, *common, name=name)(x, train=train, mask=mask)
                continue
            block = CodedBottleneck(spec, *common, self.normalize, self.aggregate, name=name)
            x, energies[name] = block(x, masks[name], train=train, mask=mask)
        return x, energies


class CodedResNeXt(nn.Module):
    """A Coded ResNeXt: stem, stages ``stage2``, ``stage3``, ... (c2, c3, ...), head.

    With every ``norm_branches`` None this *is* the plain ResNeXt: same parameters, same logits.

    Attributes:
      stages: one tuple of :class:`CodedBlockSpec` a stage.
      num_classes: K, or the number of outputs kept.
      drop_rate: p_drop of dropSubNN (3.1.3); needs the rng ``"drop"`` when training.
      normalize: energy normalisation (Eq. 3); off is an ablation.
      aggregate: ``"sum"`` (the paper) or ``"concat"`` (4.3.1's counter-example).
      stem, stem_channels, head_bias, bn_group_size, bn_momentum, dtype: as in
        :class:`branchnets.families.plain.resnet.ResNet`.

    Args of the call:
      images: [B, H, W, C_image], normalised.
      mask: [B], 0 for padding that batch statistics must not see.
      remove: block name -> [B, N], 0 for the branches to take out of that block.
      gradient: block name -> [B, N], 0 where the gradient into a branch is blocked (footnote 5).
      start: a block's name: ``images`` are then the features that enter it, and what comes before
        is not run.
      stop: a block's name: the network runs up to it and returns the features that would enter it.

    Returns :class:`CodedOutput`.
    """

    stages: tuple[tuple[CodedBlockSpec, ...], ...]
    num_classes: int
    drop_rate: float = 0.1
    normalize: bool = True
    aggregate: str = "sum"
    stem: str = "cifar"
    stem_channels: int = 64
    head_bias: bool = False
    bn_group_size: int | None = None
    bn_momentum: float = 0.9
    dtype: Any = jnp.float32

    @nn.nowrap
    def coded_blocks(self) -> dict[str, CodedBlockSpec]:
        """Name -> spec of the coded blocks, in order from input to output."""
        return {n: spec for n, spec in self.blocks().items() if spec.norm_branches is not None}

    @nn.nowrap
    def blocks(self) -> dict[str, CodedBlockSpec]:
        """Name -> spec of every block, in order from input to output."""
        return {
            f"stage{s + 2}/block{b}": spec
            for s, blocks in enumerate(self.stages)
            for b, spec in enumerate(blocks)
        }

    @nn.nowrap
    def with_blocks(self, changed: Mapping[str, CodedBlockSpec], **fields: Any) -> CodedResNeXt:
        """The same network with other specs for some blocks, by name, and other fields."""
        specs = iter({**self.blocks(), **changed}.values())
        stages = tuple(tuple(next(specs) for _ in blocks) for blocks in self.stages)
        return self.clone(stages=stages, **fields)

    def _run(self, start: str | None, stop: str | None) -> list[str]:
        """Names of the blocks from ``start`` to the one before ``stop``."""
        names = list(self.blocks())
        for what, name in (("start", start), ("stop", stop)):
            if name is not None and name not in names:
                raise ValueError(f"{what}: {name!r} is not a block; those are {', '.join(names)}")
        begin = names.index(start) if start else 0
        end = names.index(stop) if stop else len(names)
        if begin > end:
            raise ValueError(f"the network cannot start at {start} and stop before, at {stop}")
        return names[begin:end]

    def _drop_masks(self, batch: int, train: bool) -> dict[str, jax.Array | None]:
        """Inverted-dropout factors [B, N], one draw for each run of blocks of one scheme."""
        coded = self.coded_blocks()
        if not train or not self.drop_rate:
            return dict.fromkeys(coded)
        keep = 1.0 - self.drop_rate
        drawn: dict[int, jax.Array] = {}
        for spec in coded.values():
            if spec.drop_run not in drawn:
                kept = jax.random.bernoulli(self.make_rng("drop"), keep, (batch, spec.branches))
                drawn[spec.drop_run] = kept.astype(jnp.float32) / keep
        return {name: drawn[spec.drop_run] for name, spec in coded.items()}

    def _masks(
        self,
        batch: int,
        train: bool,
        remove: Mapping[str, jax.Array],
        gradient: Mapping[str, jax.Array],
    ) -> dict[str, BranchMasks]:
        coded = self.coded_blocks()
        for kind, given in (("remove", remove), ("gradient", gradient)):
            for name, value in given.items():
                if name not in coded:
                    raise ValueError(
                        f"{kind}: {name!r} is not a coded block; those are {', '.join(coded)}"
                    )
                expected = (batch, coded[name].branches)
                if jnp.shape(value) != expected:
                    raise ValueError(
                        f"{kind}[{name!r}] has shape {jnp.shape(value)}, must be {expected}"
                    )
        drop = self._drop_masks(batch, train)
        return {
            name: BranchMasks(remove.get(name), drop[name], gradient.get(name)) for name in coded
        }

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        *,
        train: bool = False,
        mask: jax.Array | None = None,
        remove: Mapping[str, jax.Array] | None = None,
        gradient: Mapping[str, jax.Array] | None = None,
        start: str | None = None,
        stop: str | None = None,
    ) -> CodedOutput:
        check_images(images)
        masks = self._masks(images.shape[0], train, remove or {}, gradient or {})
        running = self._run(start, stop)
        common = (self.bn_group_size, self.bn_momentum, self.dtype)
        x = images.astype(self.dtype)
        if start is None:
            x = Stem(self.stem, self.stem_channels, *common, name="stem")(x, train=train, mask=mask)
        energies = {}
        for s, blocks in enumerate(self.stages):
            stage = f"stage{s + 2}"
            inside = {
                name.removeprefix(f"{stage}/"): masks.get(name, BranchMasks())
                for name in running
                if name.startswith(f"{stage}/")
            }
            if not inside:
                continue
            x, found = CodedStage(blocks, self.normalize, self.aggregate, *common, name=stage)(
                x, inside, train=train, mask=mask
            )
            energies.update({f"{stage}/{name}": value for name, value in found.items()})
        if stop is not None:
            return CodedOutput(None, energies, features=x)
        logits = Head(self.num_classes, self.head_bias, name="head")(x)
        return CodedOutput(logits, energies)

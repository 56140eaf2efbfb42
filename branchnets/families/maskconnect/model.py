"""MaskConnect (Ahmed and Torresani; GateConnect in the workshop version): branches with streams.

Every branch of a module has its own residual stream and reads a set of branches of the module
before it.  A module's activations are [B, H, W, N * channels], branch after branch.
"""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from branchnets.families.maskconnect import masks
from branchnets.families.plain.resnet import BlockSpec
from branchnets.nn.conv import Conv
from branchnets.nn.norm import BatchNorm
from branchnets.nn.resnet_parts import Head, Shortcut, Stem, check_images

#: How a module with learned masks gets its connections in a call: drawn from the masks, their K
#: largest entries, or the real-valued masks themselves (the variant that the paper rejects; here
#: they are normalised, as those that are drawn from).
CONNECT = ("sample", "top", "real")
AGGREGATES = ("sum", "mean")

Connections = tuple[tuple[int, ...], ...]


class Wiring(NamedTuple):
    """What the branches of a module read.

    Attributes:
      mask: m, [N, N before].
      inputs: [N] number of inputs of every branch, where their sum is divided by it.
    """

    mask: jax.Array
    inputs: tuple[int, ...] | None


@dataclasses.dataclass(frozen=True)
class ModuleSpec(BlockSpec):
    """A module of Table 5.

    Attributes:
      connections: the branches that each branch reads, by index into the module before; None:
        masks decide.  Of a pruned network, and of none that is being trained.
    """

    connections: Connections | None = None


@flax.struct.dataclass
class MaskConnectOutput:
    """What the network returns.

    Attributes:
      logits: [B, K] float32.
      connections: module name -> the 0/1 (or real) masks m that were used, [N, N before]; none for
        the first module, which reads the stem.
    """

    logits: jax.Array
    connections: dict[str, jax.Array]


class MaskedModule(nn.Module):
    """N residual bottlenecks, each with inputs of its own (Fig. 1c).

        x_j = sum_k m_jk y_k,   y_j = ReLU(s(x_j) + F_j(x_j))

    F_j is 1x1 conv, BN, ReLU, 3x3 conv (stride), BN, ReLU, 1x1 conv, BN, with weights and batch
    norms of its own.  s is the identity, or, where shapes change, one 1x1 convolution and batch
    norm that all branches of the module share.

    Input [B, H, W, inputs, channels of one stream] and what each branch reads, or None where all
    read the one input.  Output [B, H/stride, W/stride, N, C].
    """

    spec: ModuleSpec
    bn_group_size: int | None = None
    bn_momentum: float = 0.9
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        streams: jax.Array,
        wiring: Wiring | None,
        *,
        train: bool = False,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        if wiring is not None:
            streams = masks.mix(streams, *wiring)
        residual = self._residual(streams, train, mask)
        return nn.relu(self._shortcut(streams, train, mask) + residual)

    def _residual(self, streams: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
        """F of every branch, [B, H/stride, W/stride, N, C]."""
        spec = self.spec
        inner, groups = spec.branches * spec.width, spec.branches
        # Branches that read one input are one dense convolution.
        reading = 1 if streams.shape[3] == 1 else groups
        x = streams.reshape(*streams.shape[:3], -1)
        x = Conv(inner, 1, groups=reading, dtype=self.dtype, name="reduce")(x)
        x = self._norm("reduce_bn", relu=True)(x, train=train, mask=mask)
        x = Conv(inner, 3, spec.stride, groups=groups, dtype=self.dtype, name="branch_conv")(x)
        x = self._norm("branch_bn", relu=True)(x, train=train, mask=mask)
        outer = spec.branches * spec.channels
        x = Conv(outer, 1, groups=groups, dtype=self.dtype, name="expand")(x)
        x = self._norm("expand_bn")(x, train=train, mask=mask)
        return x.reshape(*x.shape[:3], spec.branches, spec.channels)

    def _norm(self, name: str, **kwargs: Any) -> BatchNorm:
        return BatchNorm(
            self.bn_group_size, self.bn_momentum, dtype=self.dtype, name=name, **kwargs
        )

    def _shortcut(self, streams: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
        """s of every branch's input; the branches lie beside each other as if they were pixels."""
        stride = self.spec.stride
        x = streams[:, ::stride, ::stride]
        shape = x.shape
        common = (self.bn_group_size, self.bn_momentum, self.dtype)
        x = Shortcut(self.spec.channels, 1, *common, name="shortcut")(
            x.reshape(*shape[:2], -1, shape[-1]), train=train, mask=mask
        )
        return x.reshape(*shape[:-1], self.spec.channels)


class MaskedStage(nn.Module):
    """Modules of one feature-map size, named ``block0``, ``block1``, ...

    Takes module name -> wiring (None: there is nothing to choose), returns the streams.
    """

    modules: tuple[ModuleSpec, ...]
    bn_group_size: int | None = None
    bn_momentum: float = 0.9
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        streams: jax.Array,
        wirings: dict[str, Wiring | None],
        *,
        train: bool = False,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        common = (self.bn_group_size, self.bn_momentum, self.dtype)
        for i, spec in enumerate(self.modules):
            name = f"block{i}"
            streams = MaskedModule(spec, *common, name=name)(
                streams, wirings[name], train=train, mask=mask
            )
        return streams


class MaskConnectNet(nn.Module):
    """Stem, stages ``stage2``, ``stage3``, ... of modules, sum over the last branches, head.

    The collection ``"masks"`` holds the real-valued masks, ``stage2/block1`` -> [N, N before], of
    every module but the first and those with fixed ``connections``.

    Attributes:
      stages: one tuple of :class:`ModuleSpec` a stage.
      num_classes: K of the data.
      fan_in: K, the inputs of every branch.
      aggregate: ``"sum"`` (Eq. 2) or ``"mean"``, which divides by the number of inputs, at the
        head too.  As a sum, the identity path grows by K in every module without a projection:
        a deep network with a large K leaves the range of float32.  Differs: the mean is not in
        the paper; every config of ours trains it.
      mask_init: ``"uniform"``, ``"random"`` (K random ones a row; for fixed random connectivity)
        or ``"ones"`` (every branch reads all; with ``fan_in`` = N).
      stem, stem_channels, head_bias, bn_group_size, bn_momentum, dtype: as in
        :class:`branchnets.families.plain.resnet.ResNet`.

    Args of the call:
      images: [B, H, W, C_image], normalised.
      mask: [B], 0 for padding that batch statistics must not see.
      connect: one of :data:`CONNECT`; ``"sample"`` needs the rng ``"masks"``, and its gradient goes
        straight through to the real-valued masks.

    Returns :class:`MaskConnectOutput`.
    """

    stages: tuple[tuple[ModuleSpec, ...], ...]
    num_classes: int
    fan_in: int = 4
    aggregate: str = "sum"
    mask_init: str = "uniform"
    stem: str = "cifar"
    stem_channels: int = 16
    head_bias: bool = True
    bn_group_size: int | None = None
    bn_momentum: float = 0.9
    dtype: Any = jnp.float32

    @nn.nowrap
    def modules(self) -> dict[str, ModuleSpec]:
        """Name -> spec of every module, in order from input to output."""
        return {
            f"stage{s + 2}/block{b}": spec
            for s, stage in enumerate(self.stages)
            for b, spec in enumerate(stage)
        }

    @nn.nowrap
    def readers(self) -> list[tuple[str, ModuleSpec, int]]:
        """(name, spec, branches of the module before) of every module but the first, in order."""
        modules = self.modules()
        before = [spec.branches for spec in modules.values()]
        _, *reading = modules.items()
        return [(name, spec, count) for (name, spec), count in zip(reading, before, strict=False)]

    @nn.nowrap
    def is_learned(self) -> bool:
        """Whether any module has masks; a pruned network, or one of one module, has none."""
        return any(spec.connections is None for _, spec, _ in self.readers())

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        *,
        train: bool = False,
        mask: jax.Array | None = None,
        connect: str = "top",
    ) -> MaskConnectOutput:
        check_images(images)
        self._check(connect)
        chosen = self._connections(connect)
        common = (self.bn_group_size, self.bn_momentum, self.dtype)
        x = images.astype(self.dtype)
        x = Stem(self.stem, self.stem_channels, *common, name="stem")(x, train=train, mask=mask)
        x = x[:, :, :, None, :]
        for s, stage in enumerate(self.stages):
            name = f"stage{s + 2}"
            inside = {
                f"block{b}": self._wiring(chosen.get(f"{name}/block{b}"), spec, connect)
                for b, spec in enumerate(stage)
            }
            x = MaskedStage(stage, *common, name=name)(x, inside, train=train, mask=mask)
        x = (jnp.sum if self.aggregate == "sum" else jnp.mean)(x, axis=3, dtype=jnp.float32)
        logits = Head(self.num_classes, self.head_bias, name="head")(x)
        return MaskConnectOutput(logits, chosen)

    def _check(self, connect: str) -> None:
        for what, value, known in (
            ("connect", connect, CONNECT),
            ("aggregate", self.aggregate, AGGREGATES),
            ("mask_init", self.mask_init, tuple(_MASK_INITS)),
        ):
            if value not in known:
                raise ValueError(f"unknown {what} {value!r}; use {', '.join(known)}")

    def _connections(self, connect: str) -> dict[str, jax.Array]:
        """Module name -> m, of every module but the first."""
        return {
            name: self._mask(name, spec, before, connect) for name, spec, before in self.readers()
        }

    def _mask(self, name: str, spec: ModuleSpec, before: int, connect: str) -> jax.Array:
        if spec.connections is not None:
            return fixed(spec.connections, spec.branches, before, name)
        if not 1 <= self.fan_in <= before:
            raise ValueError(
                f"fan_in is {self.fan_in}; {name} can read 1 to {before} branches of the module "
                "before it"
            )
        if self.mask_init == "ones" and self.fan_in != before:
            raise ValueError(
                f"mask_init 'ones' lets every branch read all {before} before it; fan_in is "
                f"{self.fan_in}, set it to {before}"
            )
        init = _MASK_INITS[self.mask_init]
        shape = (spec.branches, before)
        stored = self.variable(
            "masks", name, lambda: init(self.make_rng("params"), shape, self.fan_in)
        )
        value = stored.value
        if value.shape != shape:
            raise ValueError(f"the mask of {name} has shape {value.shape}, must be {shape}")
        if connect == "real":
            return value
        if connect == "top":
            return masks.top(value, self.fan_in)
        # One draw a module, wherever it lies.
        key = jax.random.fold_in(self.make_rng("masks"), zlib.crc32(name.encode()))
        return masks.straight_through(masks.sample(key, value, self.fan_in), value)

    def _wiring(self, chosen: jax.Array | None, spec: ModuleSpec, connect: str) -> Wiring | None:
        if chosen is None:
            return None
        if self.aggregate == "sum":
            return Wiring(chosen, None)
        if spec.connections is not None:
            return Wiring(chosen, tuple(map(len, spec.connections)))
        # Real-valued masks sum to 1 and are a mean already.
        return Wiring(chosen, None if connect == "real" else (self.fan_in,) * spec.branches)


def fixed(connections: Connections, branches: int, before: int, name: str = "") -> jax.Array:
    """Connections as a 0/1 mask [branches, before]; raises ValueError if they do not fit."""
    if len(connections) != branches:
        raise ValueError(
            f"{name}: connections of {len(connections)} branches, there are {branches}"
        )
    table = np.zeros((branches, before), np.float32)
    for j, inputs in enumerate(connections):
        if not inputs or len(set(inputs)) < len(inputs) or not set(inputs) <= set(range(before)):
            raise ValueError(
                f"{name}: branch {j} reads {inputs}; it needs at least one of 0 to {before - 1}, "
                "each once"
            )
        table[j, list(inputs)] = 1
    return jnp.asarray(table)


_MASK_INITS = {
    "uniform": lambda key, shape, fan_in: jnp.full(shape, 1.0 / shape[-1], jnp.float32),
    "random": lambda key, shape, fan_in: masks.top(jax.random.uniform(key, shape), fan_in),
    "ones": lambda key, shape, fan_in: jnp.ones(shape, jnp.float32),
}

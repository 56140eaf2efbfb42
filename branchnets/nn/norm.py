"""Batch normalisation whose statistics belong to explicit groups of examples.

How many examples share statistics is part of a network's definition. Here it is a number of the
model, and does not depend on how many devices the batch is spread over.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike


class Statistics(NamedTuple):
    """Per-group statistics: `mean` and biased `var` [G, C], number of `examples` [G] (mask sum)."""

    mean: Array
    var: Array
    examples: Array


def batch_norm(
    x: Array,
    scale: Array,
    bias: Array,
    *,
    group_size: int | None = None,
    mask: Array | None = None,
    epsilon: float = 1e-5,
    relu: bool = False,
) -> tuple[Array, Statistics]:
    """Normalises every group of consecutive examples by its own statistics (training form).

    y = scale * (x - mean_g) / sqrt(var_g + epsilon) + bias, then max(y, 0) if `relu`;
    mean_g and the biased var_g are over the group's examples and all axes but the last.

    The gradient is written by hand: it keeps x and the statistics only, and finds the sign of the
    pre-activation again instead of keeping the output.

    Args:
      x: [B, ..., C], float32 or bfloat16 (statistics and arithmetic are float32).
      scale: [C] float32.
      bias: [C] float32.
      group_size: examples that share statistics, divides B; None = the whole batch.
      mask: [B], 1 for an example and 0 for padding, which is normalised but enters no statistics.
        A group of padding alone is left unscaled (mean 0, variance 1).
      epsilon: added to the variance.
      relu: whether the output is rectified.

    Returns:
      y [B, ..., C] in x's dtype, and the groups' `Statistics`, through which no gradient flows.

    Raises:
      ValueError: group_size does not divide B, or the mask is not of shape [B].
    """
    examples = x.shape[0]
    groups = _number_of_groups(examples, group_size)
    if mask is not None:
        if mask.shape != (examples,):
            raise ValueError(f"mask must have shape ({examples},), got {mask.shape}.")
        mask = mask.astype(_accumulator(x))
    y, mean, var, count = _batch_norm(x, scale, bias, mask, groups, epsilon, relu)
    return y, Statistics(*map(lax.stop_gradient, (mean, var, count)))


class BatchNorm(nn.Module):
    """Batch normalisation with a statistics group, and optionally the ReLU that follows it.

    Training normalises by the statistics of `group_size` consecutive examples (None = the whole
    global batch); if the batch is spread over devices in whole groups, that needs no communication.
    Evaluation uses the running averages,
    running <- momentum * running + (1 - momentum) * (mean over groups of the group statistics).

    Parameters "scale" and "bias", and the averages "mean" and (biased) "var" in the collection
    "batch_stats": all float32 [C]. `momentum` is Flax's, 1 minus PyTorch's.
    """

    group_size: int | None = None
    momentum: float = 0.9
    epsilon: float = 1e-5
    scale_init: Callable[..., Array] = nn.initializers.ones_init()
    relu: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool, mask: Array | None = None) -> Array:
        """x [B, ..., C] to an array of its shape in `dtype`; `mask` [B] marks padding with 0."""
        x = jnp.asarray(x, self.dtype)
        shape = (x.shape[-1],)
        scale = self.param("scale", self.scale_init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), shape, jnp.float32)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        if not train:
            return apply_running(x, scale, bias, mean.value, var.value, self.epsilon, self.relu)
        y, statistics = batch_norm(
            x,
            scale,
            bias,
            # Initialisation may use any batch: only shapes matter there.
            group_size=None if self.is_initializing() else self.group_size,
            mask=mask,
            epsilon=self.epsilon,
            relu=self.relu,
        )
        if not self.is_initializing():
            mean.value, var.value = update_running(mean.value, var.value, statistics, self.momentum)
        return y


def apply_running(
    x: Array, scale: Array, bias: Array, mean: Array, var: Array, epsilon: float, relu: bool
) -> Array:
    """Normalises by given statistics [C], folded into one scale and shift (evaluation form)."""
    factor = scale * lax.rsqrt(var + epsilon)
    y = x.astype(factor.dtype) * factor + (bias - mean * factor)
    return (jnp.maximum(y, 0) if relu else y).astype(x.dtype)


def update_running(
    mean: Array, var: Array, statistics: Statistics, momentum: float
) -> tuple[Array, Array]:
    """New running averages; groups of padding alone do not enter, nor does a batch of them."""
    weight = (statistics.examples > 0).astype(mean.dtype)
    weight = weight / jnp.maximum(weight.sum(), 1)
    rate = (1 - momentum) * (statistics.examples > 0).any()
    return (
        mean + rate * (weight @ statistics.mean - mean),
        var + rate * (weight @ statistics.var - var),
    )


def _number_of_groups(examples: int, group_size: int | None) -> int:
    if group_size is None:
        return 1
    if group_size < 1 or examples % group_size:
        raise ValueError(
            f"Batch norm with statistics groups of {group_size} examples cannot split a batch of "
            f"{examples}: use a batch size that is a multiple of the group size, a group size "
            "that divides the batch, or None for statistics of the whole batch."
        )
    return examples // group_size


def _accumulator(x: Array) -> Any:
    return jnp.promote_types(x.dtype, jnp.float32)


def _split(x: Array, groups: int) -> Array:
    return x.reshape(groups, x.shape[0] // groups, *x.shape[1:])


def _per_channel(values: Array, ndim: int) -> Array:
    """[G, C] to [G, 1, ..., 1, C]."""
    return values.reshape(values.shape[0], *(1,) * (ndim - 2), values.shape[-1])


def _per_example(mask: Array, groups: int, ndim: int) -> Array:
    """[B] to [G, B / G, 1, ..., 1]."""
    return mask.reshape(groups, -1, *(1,) * (ndim - 2))


@partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _batch_norm(
    x: Array,
    scale: Array,
    bias: Array,
    mask: Array | None,
    groups: int,
    epsilon: float,
    relu: bool,
) -> tuple[Array, Array, Array, Array]:
    return _forward(x, scale, bias, mask, groups, epsilon, relu)[0]


def _forward(x, scale, bias, mask, groups, epsilon, relu):
    x32 = _split(x, groups).astype(_accumulator(x))
    axes = tuple(range(1, x32.ndim - 1))
    per_example = math.prod(x32.shape[2:-1])
    if mask is None:
        count = jnp.full((groups,), x32.shape[1], x32.dtype)
        elements = jnp.asarray(x32.shape[1] * per_example, x32.dtype)[None, None]
        weighted = x32
    else:
        count = mask.reshape(groups, -1).sum(1)
        elements = jnp.maximum(count * per_example, 1)[:, None]
        weighted = x32 * _per_example(mask, groups, x32.ndim)
    mean = weighted.sum(axes) / elements
    # One pass over x for both sums, as in Flax; rounding may leave a tiny negative number.
    var = jnp.maximum((weighted * x32).sum(axes) / elements - mean**2, 0)
    if mask is not None:
        var = jnp.where(count[:, None] > 0, var, 1)
    inverse = lax.rsqrt(var + epsilon)
    y = _normalise(x32, mean, inverse, scale, bias)
    y = (jnp.maximum(y, 0) if relu else y).astype(x.dtype).reshape(x.shape)
    return (y, mean, var, count), (x, scale, bias, mask, mean, inverse)


def _normalise(x32, mean, inverse, scale, bias):
    factor = scale * inverse
    shift = bias - mean * factor
    return x32 * _per_channel(factor, x32.ndim) + _per_channel(shift, x32.ndim)


def _backward(groups, epsilon, relu, kept, cotangents):
    """Exact also for cotangents of padded examples, which depend on the statistics they skip."""
    x, scale, bias, mask, mean, inverse = kept
    x32 = _split(x, groups).astype(_accumulator(x))
    dy = _split(cotangents[0], groups).astype(x32.dtype)
    axes = tuple(range(1, x32.ndim - 1))
    if relu:
        dy = jnp.where(_normalise(x32, mean, inverse, scale, bias) > 0, dy, 0)
    sum_dy = dy.sum(axes)
    sum_dy_normal = ((dy * x32).sum(axes) - mean * sum_dy) * inverse
    per_example = math.prod(x32.shape[2:-1])
    if mask is None:
        share: Array | float = 1 / (x32.shape[1] * per_example)
    else:
        elements = jnp.maximum(mask.reshape(groups, -1).sum(1) * per_example, 1)
        share = _per_example(mask.reshape(groups, -1) / elements[:, None], groups, x32.ndim)
    # dx = factor * (dy - share * (sum_dy + normal * sum_dy_normal)), gathered as a line in dy and
    # x: with x - mean instead, XLA for CPU writes that and every broadcast out in full.
    factor = scale * inverse
    slope = -factor * inverse * sum_dy_normal
    offset = -factor * sum_dy - slope * mean
    line = x32 * _per_channel(slope, x32.ndim) + _per_channel(offset, x32.ndim)
    dx = dy * _per_channel(factor, x32.ndim) + share * line
    return (
        dx.astype(x.dtype).reshape(x.shape),
        sum_dy_normal.sum(0).astype(scale.dtype),
        sum_dy.sum(0).astype(bias.dtype),
        None if mask is None else jnp.zeros_like(mask),
    )


_batch_norm.defvjp(_forward, _backward)

"""Grouped and per-branch convolution; the one place that chooses how it is lowered.

XLA's cost of a grouped convolution depends strongly on how it is written: on CPU the gradient of
the direct form is up to hundreds of times slower than that of a few dense convolutions, while for
TPU the direct form is the cheapest. So one function computes it, and picks the form for the
platform that the program is compiled for (not the one it is traced on) and for the shape.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike, DTypeLike

from branchnets.nn.lowering import PLATFORMS, Form, bilinear

# He et al. (2015) with fan_out = kh * kw * C_out, the initial kernels of every network here.
he_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def choose_lowering(
    platform: str,
    x_shape: tuple[int, ...],
    kernel_shape: tuple[int, ...],
    groups: int,
    stride: int = 1,
    padding: int | None = None,
) -> str:
    """Name of the form that `grouped_conv` takes on `platform`: a pure function of static shapes.

    CPU: from the measurements of `benchmarks/conv_lowerings.py` (`results/conv_lowerings.md`).
    TPU: the direct form, cheapest by the compiler's own estimate; of an ordinary 1x1 convolution
    too, for a product of two axes makes it copy what lies in memory otherwise (`results/scale.md`).
    GPU: the direct form, not measured yet.
    """
    kh, kw, in_group, features = kernel_shape
    if (kh, kw) == (1, 1) and not padding:
        if groups == 1:
            if platform == "cpu" and in_group > features:
                return "dot:1"
            return "grouped" if platform == "tpu" else "dot"
        # One product with a block-diagonal kernel reads x in one piece, as slices of its channels
        # do not; its zeros are worth it up to 64 channels on the narrow side. Of branches that
        # together have more, narrow ones take products of up to 32 channels, others one each.
        narrow = min(in_group, features // groups)
        if groups * narrow <= 64:
            pack = groups
        else:
            pack = 32 // narrow if narrow <= 8 else 1
        return f"dot:{pack}" if platform == "cpu" else "grouped"
    if groups == 1 or platform != "cpu":
        return "grouped"
    # The gradient of the direct form is out of the question on CPU. A dense convolution gets
    # faster per channel up to some 32 of them, which then outweighs the products with zeros: later
    # with a stride (x's gradient is mostly zeros then), earlier in the kernel's gradient. Two
    # branches at a time pay up to 64, having half as many convolutions to start. Powers of two
    # keep the channels well aligned.
    pack = 1
    while 2 * pack <= groups and 2 * pack * in_group <= (64 if stride > 1 or pack == 1 else 32):
        pack *= 2
    return f"packed:{pack},{pack // 2}" if pack > 1 else "packed:1"


def grouped_conv(
    x: Array,
    kernel: Array,
    *,
    groups: int,
    stride: int = 1,
    padding: int | None = None,
    lowering: str | None = None,
) -> Array:
    """Convolution of `groups` separate channel groups (branches); 1 is the ordinary convolution.

    y[b, i, j, g] = sum_{u,v} x[b, s*i + u - p, s*j + v - p, g] @ kernel[u, v, :, g]

    Args:
      x: [B, H, W, C_in], the groups' channels one after another.
      kernel: [kh, kw, C_in / groups, C_out], of x's dtype; the first C_out / groups outputs belong
        to the first group, and so on.
      groups: number of groups, divides C_in and C_out.
      stride: the same for both axes.
      padding: zeros added on all four sides, None = (k - 1) // 2 of each axis as in PyTorch (for
        a stride above 1, "SAME" would pad differently).
      lowering: None picks one per platform and shape (`choose_lowering`). For tests and
        benchmarks: "grouped" (the direct form), "dense" (one convolution, block-diagonal kernel),
        "packed:P" (one such convolution per P groups), "packed:P,Q" (the same, with Q groups
        for the kernel's gradient), "dot" (matrix products, one per group, 1x1 kernels only),
        "dot:P" (one per P groups, of which the kernel's gradient is the one that is faster on CPU).

    Returns:
      [B, H', W', C_out] in x's dtype, H' = (H + 2 p - kh) // stride + 1.

    Raises:
      ValueError: shapes, dtypes or the name of the lowering do not fit.

    Where platforms take different forms, only reverse-mode differentiation is offered, and x and
    kernel are all that is kept for it.
    """
    _check(x, kernel, groups, stride)
    spatial = _spatial(kernel.shape, stride, padding)
    choice = {
        p: lowering or choose_lowering(p, x.shape, kernel.shape, groups, stride, padding)
        for p in PLATFORMS
    }
    made = {name: _form(name, groups, spatial) for name in set(choice.values())}
    return bilinear(x, kernel, {p: made[name] for p, name in choice.items()})


class Conv(nn.Module):
    """Two-dimensional convolution, grouped or not, with PyTorch's padding and He-normal kernels.

    Input [B, H, W, C_in], output [B, H', W', features] in `dtype`. Parameters are float32:
    "kernel" [k, k, C_in / groups, features] and, with `use_bias`, "bias" [features].
    """

    features: int
    kernel_size: int = 1
    stride: int = 1
    groups: int = 1
    use_bias: bool = False
    dtype: DTypeLike = jnp.float32
    kernel_init: Callable[..., Array] = he_normal_fan_out

    @nn.compact
    def __call__(self, x: ArrayLike) -> Array:
        x = jnp.asarray(x, self.dtype)
        if x.ndim != 4:
            raise ValueError(f"Conv expects images [B, H, W, C], got an array of shape {x.shape}.")
        if x.shape[-1] % self.groups or self.features % self.groups:
            raise ValueError(
                f"{self.groups} groups must divide the {x.shape[-1]} input channels and the "
                f"{self.features} features."
            )
        k = self.kernel_size
        shape = (k, k, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        y = grouped_conv(x, kernel.astype(self.dtype), groups=self.groups, stride=self.stride)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype)
        return y


# (stride, (padding of H, padding of W))
_Spatial = tuple[int, tuple[int, int]]


def _check(x: Array, kernel: Array, groups: int, stride: int) -> None:
    if x.ndim != 4 or kernel.ndim != 4:
        raise ValueError(
            "grouped_conv expects x [B, H, W, C_in] and kernel [kh, kw, C_in / groups, C_out], "
            f"got shapes {x.shape} and {kernel.shape}."
        )
    if x.dtype != kernel.dtype:
        raise ValueError(
            f"x is {x.dtype} and the kernel {kernel.dtype}; cast one of them to the other's dtype."
        )
    if groups < 1 or stride < 1:
        raise ValueError(f"groups and stride must be at least 1, got {groups} and {stride}.")
    if kernel.shape[2] * groups != x.shape[3] or kernel.shape[3] % groups:
        raise ValueError(
            f"A kernel of shape {kernel.shape} in {groups} groups needs "
            f"{kernel.shape[2] * groups} input channels and a multiple of {groups} outputs; "
            f"x has {x.shape[3]} channels."
        )


def _spatial(kernel_shape: tuple[int, ...], stride: int, padding: int | None) -> _Spatial:
    if padding is None:
        return stride, ((kernel_shape[0] - 1) // 2, (kernel_shape[1] - 1) // 2)
    return stride, (padding, padding)


def _form(name: str, groups: int, spatial: _Spatial) -> Form:
    match = re.fullmatch(r"(grouped|dense|dot|packed)(?::([1-9]\d*)(?:,([1-9]\d*))?)?", name)
    kind, pack, kernel_pack = match.groups() if match else ("", None, None)
    if kind == "grouped" and not pack:
        return _same(partial(_conv, spatial=spatial, groups=groups))
    if kind == "dense" and not pack:
        return _same(partial(_packed, spatial=spatial, groups=groups, pack=groups))
    if kind == "dot" and not kernel_pack:
        dot = partial(_dot, spatial=spatial, groups=groups, pack=int(pack or 1))
        return Form(dot, partial(dot, turn=True)) if pack else _same(dot)
    if kind == "packed" and pack:
        packed = partial(_packed, spatial=spatial, groups=groups)
        result = partial(packed, pack=int(pack))
        return Form(result, partial(packed, pack=int(kernel_pack)) if kernel_pack else result)
    raise ValueError(
        f"Unknown lowering {name!r}; known: 'grouped', 'dense', 'packed:P' or 'packed:P,Q', 'dot' "
        "or 'dot:P' (P and Q positive integers)."
    )


def _same(form: Callable[[Array, Array], Array]) -> Form:
    return Form(form, form)


def _conv(x: Array, kernel: Array, *, spatial: _Spatial, groups: int) -> Array:
    stride, (ph, pw) = spatial
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((ph, ph), (pw, pw)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _packed(x: Array, kernel: Array, *, spatial: _Spatial, groups: int, pack: int) -> Array:
    """One dense convolution per `pack` groups, its kernel block-diagonal."""
    return _in_packs(partial(_conv, spatial=spatial, groups=1), x, kernel, groups, pack)


def _in_packs(
    form: Callable[[Array, Array], Array], x: Array, kernel: Array, groups: int, pack: int
) -> Array:
    in_group, out_group = kernel.shape[2], kernel.shape[3] // groups
    outputs = []
    for first in range(0, groups, pack):
        last = min(first + pack, groups)
        part = x[..., first * in_group : last * in_group]
        block = _block_diagonal(kernel[..., first * out_group : last * out_group], last - first)
        outputs.append(form(part, block))
    return outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=-1)


def _block_diagonal(kernel: Array, groups: int) -> Array:
    """[kh, kw, I, groups * O] to [kh, kw, groups * I, groups * O], zero outside the blocks."""
    if groups == 1:
        return kernel
    kh, kw, i, o = kernel.shape
    blocks = kernel.reshape(kh, kw, 1, i, groups, o // groups)
    eye = jnp.eye(groups, dtype=bool)[:, None, :, None]
    return jnp.where(eye, blocks, 0).reshape(kh, kw, groups * i, o)


def _dot(
    x: Array, kernel: Array, *, spatial: _Spatial, groups: int, pack: int, turn: bool = False
) -> Array:
    """One matrix product per `pack` groups, its kernel block-diagonal; turned if that is faster."""
    stride, padding = spatial
    if kernel.shape[:2] != (1, 1) or padding != (0, 0):
        raise ValueError(
            f"The 'dot' lowering takes 1x1 kernels without padding, got a kernel of shape "
            f"{kernel.shape} with padding {padding}."
        )
    if stride > 1:
        x = x[:, ::stride, ::stride]
    b, h, w, c = x.shape
    # Products of exactly two axes each: XLA for CPU transposes the operands of a contraction over
    # several axes, or with a batch axis in the middle, which costs more than the product itself.
    product = _turned if turn and kernel.shape[2] * groups > kernel.shape[3] else _straight
    y = _in_packs(product, x.reshape(b * h * w, c), kernel, groups, pack)
    return y.reshape(b, h, w, -1)


def _straight(x: Array, kernel: Array) -> Array:
    return x @ kernel[0, 0]


def _turned(x: Array, kernel: Array) -> Array:
    """The same; the gradient of the kernel is (dy^T x)^T, where that of `_straight` is x^T dy.

    Eigen takes 0.6 to 0.9 of the time if the narrow operand comes first. The barrier is against
    XLA, which would turn the product back.
    """
    turned = lax.optimization_barrier(kernel[0, 0].T)
    return lax.dot_general(x, turned, (((1,), (1,)), ((), ())))

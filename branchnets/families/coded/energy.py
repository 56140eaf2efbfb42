"""Branch energies and the expansion of a coded block, without the [B, N, C, H, W] tensor.

The output of branch n is linear in its bottleneck output, t_n = W_n^T b_n, so that its mean energy
(Coded ResNeXt, Eq. 2) needs only second moments of b_n:

    E(t_n) = 1/(C H W) sum_hw b_n^T (W_n W_n^T) b_n = <M_n, G_n> / C,
    M_n = mean_hw b_n b_n^T  [D, D] per example,    G_n = W_n W_n^T  [D, D].

Normalising, dropping and removing a branch multiply b_n by one number per example, and the sum
over branches is then one ordinary 1x1 convolution.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from branchnets.nn.conv import grouped_conv

#: Floor under the mean total energy of Eq. 3.  Differs: the authors divide by zero where every
#: branch is silent; with the floor the output is zero there, and values and gradients are finite.
MIN_TOTAL_ENERGY = 1e-12


def gram(kernel: jax.Array, branches: int) -> jax.Array:
    """G_n = W_n W_n^T of the expansion.

    Args:
      kernel: [1, 1, N*D, C] or [N*D, C]; already rounded to the compute type, so that the energies
        are those of the convolution that runs.
      branches: N.

    Returns:
      [N, D, D] float32.
    """
    kernel = kernel.reshape(branches, -1, kernel.shape[-1]).astype(jnp.float32)
    return jnp.einsum("ndc,nec->nde", kernel, kernel, precision="highest")


@jax.custom_vjp
def gram_energies(hidden: jax.Array, gram_matrix: jax.Array) -> jax.Array:
    """mean_hw b_n^T G_n b_n, clamped at zero.

    Args:
      hidden: b, [B, H, W, N*D], any float type.
      gram_matrix: G, [N, D, D] float32, symmetric.

    Returns:
      [B, N] float32: C times Eq. 2.
    """
    return _energies(hidden, gram_matrix)[0]


def _split(hidden: jax.Array, branches: int) -> jax.Array:
    batch, height, width, inner = hidden.shape
    return hidden.reshape(batch, height * width, branches, inner // branches)


def _energies(hidden, gram_matrix):
    """The energies, not yet clamped ones, and the moments M [B, N, D, D]."""
    branches = gram_matrix.shape[0]
    split = _split(hidden, branches)
    # Products of bfloat16 numbers are exact in the float32 in which they are summed; float32 ones
    # must not be rounded to fewer bits first, as accelerators do by default.
    precision = "highest" if hidden.dtype == jnp.float32 else None
    moments = jnp.einsum(
        "bpnd,bpne->bnde",
        split,
        split,
        precision=precision,
        preferred_element_type=jnp.float32,
    )
    moments = moments / split.shape[1]
    energies = jnp.einsum("bnde,nde->bn", moments, gram_matrix, precision="highest")
    return jnp.maximum(energies, 0.0), energies, moments


def _energies_fwd(hidden, gram_matrix):
    clamped, energies, _ = _energies(hidden, gram_matrix)
    return clamped, (hidden, gram_matrix, energies > 0)


def _energies_bwd(residuals, cotangent):
    hidden, gram_matrix, positive = residuals
    cotangent = jnp.where(positive, cotangent, 0.0)
    return lax.platform_dependent(
        hidden, gram_matrix, cotangent, tpu=_gradients_by_conv, default=_gradients_by_moments
    )


def _gradients_by_moments(hidden, gram_matrix, cotangent):
    """The gradients of hidden and of G; the moments are those of the forward pass, found again."""
    split = _split(hidden, gram_matrix.shape[0])
    # d/db of b^T G b is 2 G b: one product a branch, with the cotangent of the example folded in.
    scaled = (2.0 / split.shape[1]) * cotangent[:, :, None, None] * gram_matrix
    grad_hidden = jnp.einsum(
        "bpne,bnde->bpnd",
        split,
        scaled.astype(hidden.dtype),
        preferred_element_type=jnp.float32,
    )
    _, _, moments = _energies(hidden, gram_matrix)
    grad_gram = jnp.einsum("bn,bnde->nde", cotangent, moments, precision="highest")
    return grad_hidden.astype(hidden.dtype).reshape(hidden.shape), grad_gram


def _gradients_by_conv(hidden, gram_matrix, cotangent):
    """The same for TPU, which pads an axis of D = 16 or 32 to 128: no array here has one.

    With y = G b, a grouped 1x1 convolution, and c b as its cotangent, G c b is half the gradient of
    b, and sum c b b^T, that of its kernel, is the gradient of G.

    Differs: where b is bfloat16, c b and the gradient of G are rounded to it, up to 2^-8 of each;
    the other form keeps both in float32.
    """
    branches, width, _ = gram_matrix.shape
    kernel = gram_matrix.transpose(1, 0, 2).reshape(1, 1, width, branches * width)
    pixels = hidden.shape[1] * hidden.shape[2]
    _, backward = jax.vjp(
        lambda x, k: grouped_conv(x, k, groups=branches), hidden, kernel.astype(hidden.dtype)
    )
    half, grad_kernel = backward(scale_branches(hidden, cotangent / pixels))
    grad_gram = grad_kernel.reshape(width, branches, width).transpose(1, 0, 2)
    return 2 * half, grad_gram.astype(jnp.float32)


gram_energies.defvjp(_energies_fwd, _energies_bwd)


def normaliser(energies: jax.Array, norm_branches: int) -> jax.Array:
    """1 / sqrt(sum_i E(t_i) / N), the factor of Eq. 3, [B, 1].

    Args:
      energies: E, [B, kept branches] float32.
      norm_branches: N of the *full* block: a removed branch counts as one of zero energy
        (footnote 4), so a slimmed block still divides by the original N.
    """
    total = jnp.sum(energies, axis=-1, keepdims=True) / norm_branches
    return jax.lax.rsqrt(jnp.maximum(total, MIN_TOTAL_ENERGY))


def scale_branches(hidden: jax.Array, scale: jax.Array) -> jax.Array:
    """b_n times one number per example and branch: hidden [B, H, W, N*D], scale [B, N]."""
    width = hidden.shape[-1] // scale.shape[-1]
    factors = jnp.repeat(scale.astype(hidden.dtype), width, axis=-1)
    return hidden * factors[:, None, None, :]


@jax.custom_vjp
def expand_scaled(hidden: jax.Array, scale: jax.Array, kernel: jax.Array) -> jax.Array:
    """sum_n W_n^T (scale_n b_n): the branches scaled, expanded and added up.

    For the gradient the scaled branches are found again from the ones that are kept anyway.

    Args:
      hidden: b, [B, H, W, N*D].
      scale: [B, N].
      kernel: [1, 1, N*D, C], of hidden's dtype.

    Returns:
      [B, H, W, C].
    """
    return grouped_conv(scale_branches(hidden, scale), kernel, groups=1)


def _expand_fwd(hidden, scale, kernel):
    return expand_scaled(hidden, scale, kernel), (hidden, scale, kernel)


def _expand_bwd(residuals, cotangent):
    hidden, scale, kernel = residuals
    # On TPU the barrier keeps the compiler from finding out that it had them already, and keeping
    # them; on CPU that is what is wanted.
    hidden = lax.platform_dependent(hidden, tpu=lax.optimization_barrier, default=lambda x: x)

    def expand(hidden: jax.Array, scale: jax.Array, kernel: jax.Array) -> jax.Array:
        return grouped_conv(scale_branches(hidden, scale), kernel, groups=1)

    return jax.vjp(expand, hidden, scale, kernel)[1](cotangent)


expand_scaled.defvjp(_expand_fwd, _expand_bwd)


def block_gradient(value: jax.Array, mask: jax.Array) -> jax.Array:
    """``value`` forward; backward, its gradient times ``mask`` (footnote 5)."""
    return value * mask + jax.lax.stop_gradient(value * (1 - mask))

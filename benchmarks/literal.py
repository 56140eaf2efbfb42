"""The coded block as the paper writes it, with the tensor of all branch outputs."""

from __future__ import annotations

import jax.numpy as jnp

from branchnets.families.coded.model import CodedBottleneck, Kernel


def branch_outputs(hidden, kernel, branches):
    """t_n = T_n(x), [B, H, W, N, C]; hidden [B, H, W, N*D], kernel [N*D, C]."""
    split = hidden.reshape(*hidden.shape[:3], branches, -1)
    weights = kernel.reshape(branches, -1, kernel.shape[-1])
    return jnp.einsum("bhwnd,ndc->bhwnc", split, weights, precision="highest")


def energies(outputs):
    """Eq. 2, [B, N]."""
    return jnp.mean(jnp.square(outputs.astype(jnp.float32)), axis=(1, 2, 4))


def aggregate(hidden, kernel, branches, norm_branches, remove=None, drop=None, normalize=True):
    """Removal, Eq. 2, Eq. 3, dropping, sum: (sum [B, H, W, C], E(t̄_n) [B, N])."""
    outputs = branch_outputs(hidden, kernel, branches)
    if remove is not None:
        outputs = outputs * remove[:, None, None, :, None]
    if normalize:
        total = jnp.sum(energies(outputs), axis=1) / norm_branches
        outputs = outputs / jnp.sqrt(total)[:, None, None, None, None]
    measured = energies(outputs)
    if drop is not None:
        outputs = outputs * drop[:, None, None, :, None]
    return jnp.sum(outputs, axis=3), measured


class LiteralBottleneck(CodedBottleneck):
    """The coded block with the tensor of all branch outputs; same parameters, same results."""

    def _sum(self, hidden, masks):
        kernel = Kernel((1, 1, hidden.shape[-1], self.spec.channels), self.dtype, name="expand")()
        return aggregate(
            hidden,
            kernel[0, 0],
            self.spec.branches,
            self.spec.norm_branches,
            masks.remove,
            masks.drop,
            self.normalize,
        )

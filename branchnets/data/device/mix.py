"""Mixup and cutmix: pairs of examples of a batch blended, or a box of one put into the other.

Every example draws its own share, and its partner is its neighbour in the batch, whose random order
makes that a random pair: no example looks further, so a batch sharded over devices needs no
communication.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from branchnets.errors import DataError


def symmetric_beta(key: jax.Array, alpha: float, count: int) -> jax.Array:
    """Draws from Beta(alpha, alpha), float32 [count], without rejection.

        1/2 + T / (2 sqrt(1 + T^2)),    T = sqrt(U^(-1/alpha) - 1) cos(2 pi V)

    with U, V uniform: sqrt(2 alpha) T is Student's t of 2 alpha degrees of freedom (Bailey 1994),
    and this function of it is beta (Devroye 1996, "Random variate generation in one line of code").
    A sampler that rejects would loop until the slowest device is done.
    """
    radius_key, angle_key = jax.random.split(key)
    exponent = jax.random.exponential(radius_key, (count,)) / alpha  # -log(U) / alpha
    # Shares beyond this bound are 0 or 1 in float32 anyway, unless the cosine is nearly 0.
    radius = jnp.sqrt(jnp.expm1(jnp.minimum(exponent, 80.0)))
    t = radius * jnp.cos(2 * jnp.pi * jax.random.uniform(angle_key, (count,)))
    return 0.5 + 0.5 * t / jnp.sqrt(1 + t * t)


def partners(values: jax.Array) -> jax.Array:
    """Row i XOR 1 in place of row i: [B, ...] with every pair of neighbours exchanged.

    Raises:
      DataError: B is odd.
    """
    if len(values) % 2:
        raise DataError(
            f"mixup and cutmix take examples in pairs, and {len(values)} is odd; give an even "
            "batch_size"
        )
    pairs = values.reshape(-1, 2, *values.shape[1:])
    return pairs[:, ::-1].reshape(values.shape)


def box_outside(
    centres: jax.Array, keep: jax.Array, size: tuple[int, int]
) -> tuple[jax.Array, jax.Array]:
    """Where an example stays itself when a box of its partner is put into it (Yun et al. 2019).

    The box has the image's proportions and, rounded to pixels, 1 - keep of its area; what lies
    over the edge is cut off.

    Args:
      centres: int32 [B, 2], row and column of the box's middle.
      keep: float32 [B], the share that the example should keep.
      size: (H, W).

    Returns:
      (bool [B, H, W], True outside the box; float32 [B], the share of the pixels that are: exactly
      what is left, not `keep`).
    """
    inside = []
    for axis, length in enumerate(size):
        side = jnp.round(length * jnp.sqrt(1 - keep)).astype(jnp.int32)
        start = centres[:, axis] - side // 2
        place = jnp.arange(length)
        inside.append((place >= start[:, None]) & (place < (start + side)[:, None]))
    rows, columns = inside
    area = jnp.sum(rows, axis=1) * jnp.sum(columns, axis=1)
    outside = ~(rows[:, :, None] & columns[:, None, :])
    return outside, 1 - area / (size[0] * size[1])


def mix(
    key: jax.Array, images: jax.Array, labels: jax.Array, mixup: float, cutmix: float
) -> dict[str, jax.Array]:
    """A batch in which every example is mixed with its neighbour.

    Mixup (Zhang et al. 2018): share x_i + (1 - share) x_j with share ~ Beta(mixup, mixup).  Cutmix
    (Yun et al. 2019): x_i with a box of x_j in it, whose area is 1 - Beta(cutmix, cutmix) before it
    is cut at the edge, at a uniformly random place.  With both, each example gets one of them, with
    probability 1/2.

    Differs: both papers draw one share for a batch and a permutation of it; here every example
    draws its own, and partners are neighbours.

    Args:
      key: random key of this batch.
      images: float32 [B, H, W, C], normalised; B even.
      labels: int32 [B].
      mixup: alpha; 0 = no mixup.
      cutmix: alpha; 0 = no cutmix.  One of the two is above 0.

    Returns:
      "image" [B, H, W, C], "label" [B], "other_label" int32 [B]: the partner's, and "share"
      float32 [B]: the weight of "label".

    Raises:
      DataError: B is odd.
    """
    count, size = len(images), (images.shape[1], images.shape[2])
    share_key, box_key, place_key, choice_key = (jax.random.fold_in(key, i) for i in range(4))
    if mixup:
        share = symmetric_beta(share_key, mixup, count)
        weight = share[:, None, None]
    if cutmix:
        centres = jax.random.randint(place_key, (count, 2), 0, jnp.asarray(size))
        outside, left = box_outside(centres, symmetric_beta(box_key, cutmix, count), size)
        if mixup:
            boxed = jax.random.bernoulli(choice_key, 0.5, (count,))
            share = jnp.where(boxed, left, share)
            weight = jnp.where(boxed[:, None, None], outside, weight)
        else:
            share, weight = left, outside.astype(jnp.float32)
    weight = weight[..., None]
    return {
        "image": weight * images + (1 - weight) * partners(images),
        "label": labels,
        "other_label": partners(labels),
        "share": share,
    }

"""Losses and metrics of one batch, which families put together."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

Batch = Mapping[str, jax.Array]
#: A metric is (sum, count), of any shape, so that adding over batches and devices is exact; count
#: None is for what is only counted: its sum is the metric.
Metrics = dict[str, tuple[jax.Array, jax.Array | None]]


def masked_mean(values: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Mean over the examples that are not padding; values [B], mask [B] or None."""
    if mask is None:
        return jnp.mean(values)
    return jnp.sum(values * mask) / jnp.maximum(jnp.sum(mask), 1.0)


def summed(values: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """The (sum, count) pair of per-example values [B, ...]; padding counts in neither."""
    values = values.astype(jnp.float32)
    weights = jnp.ones(values.shape[0]) if mask is None else mask.astype(jnp.float32)
    return jnp.tensordot(weights, values, axes=1), jnp.sum(weights)


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """-sum_k q_k log softmax(logits)_k, float32 [B], with q = (1 - s) one_hot(label) + s / K.

    Args:
      logits: [B, K].
      labels: int32 [B].
      smoothing: s, the share of the target that is spread over all K classes, that of the label
        included (Szegedy et al. 2016, "Rethinking the Inception architecture", section 7).
    """
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
    loss = -jnp.take_along_axis(log_probabilities, labels[:, None], axis=1)[:, 0]
    if smoothing:
        loss = (1 - smoothing) * loss - smoothing * jnp.mean(log_probabilities, axis=1)
    return loss


def over_labels(values: Callable[[jax.Array], jax.Array], batch: Batch) -> jax.Array:
    """The mean of ``values(labels)`` over the two labels of each mixed example, [B, ...].

    share values(label) + (1 - share) values(other_label): for the cross-entropy, that with the
    mixed target of mixup and cutmix.  A batch without "share" has one label an example.

    Args:
      values: labels int32 [B] -> [B, ...].
      batch: "label"; where examples are mixed, "other_label" int32 [B] and "share" [B], the weight
        of "label" between 0 and 1.
    """
    first = values(batch["label"])
    if "share" not in batch:
        return first
    share = jnp.expand_dims(batch["share"], tuple(range(1, first.ndim)))
    return share * first + (1 - share) * values(batch["other_label"])


def classification_metrics(logits: jax.Array, batch: Batch) -> Metrics:
    """Cross-entropy, top-1 accuracy and, with more than five classes, top-5 accuracy.

    Of mixed examples, the mean over both labels (:func:`over_labels`).
    """
    mask, index = batch.get("mask"), jnp.arange(logits.shape[-1])

    def rank(labels: jax.Array) -> jax.Array:
        at_label = jnp.take_along_axis(logits, labels[:, None], axis=1)
        # Equal logits are ranked by class index, as argmax does, so that a constant output is not
        # counted as always right.
        # Written so that a logit that is not a number is never counted as beaten.
        ahead = ~(logits < at_label) & ((logits != at_label) | (index < labels[:, None]))
        return jnp.sum(ahead, axis=1)

    def among(first: int) -> tuple[jax.Array, jax.Array]:
        return summed(over_labels(lambda labels: rank(labels) < first, batch), mask)

    loss = over_labels(functools.partial(cross_entropy, logits), batch)
    metrics: Metrics = {"cross_entropy": summed(loss, mask), "accuracy": among(1)}
    if logits.shape[-1] > 5:
        metrics["top5_accuracy"] = among(5)
    return metrics


def evaluation_metrics(logits: jax.Array, batch: Batch) -> Metrics:
    """:func:`classification_metrics`, and "confusion": examples by class and answer, [K, K].

    Row a, column b counts the examples of class a for which the largest logit, the first of equal
    ones, is b.
    """
    labels, mask = batch["label"], batch.get("mask")
    weights = jnp.ones(len(labels)) if mask is None else jnp.asarray(mask, jnp.float32)
    # Products of zeros and ones: exact in any precision, up to 2**24 examples a cell.
    classes = jax.nn.one_hot(labels, logits.shape[-1]) * weights[:, None]
    answers = jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1])
    confusion = jnp.einsum("ba,bc->ac", classes, answers, precision="highest")
    return {**classification_metrics(logits, batch), "confusion": (confusion, None)}

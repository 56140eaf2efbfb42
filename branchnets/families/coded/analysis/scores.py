"""Scores of all binary classifiers of a coded network (4.3).

The binary classifier of class a has only the branches that the code assigns to a; its score is
logit a.  What comes before the first coded block is the same for all classes and computed once.

Features live as long as their batch; what stays in memory is the scores, a float32 for each pair
of an image and a class: n K of them, or 10 n where 9 negatives are drawn for each positive.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from branchnets.families.coded import slim
from branchnets.families.coded.analysis.parts import forward

if TYPE_CHECKING:
    from branchnets.families.coded.family import CodedFamily

Function = Callable[[Any, Mapping[str, jax.Array]], jax.Array]


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores of (image, class) pairs.

    Attributes:
      values: [n, m] float32.
      labels: of the images, [n]; -1 for images of no class of the network.
      classes: class of each pair, [n, m], -1 for a pair that is none; None: m = K, pair (i, a) is
        image i with class a.
    """

    values: np.ndarray
    labels: np.ndarray
    classes: np.ndarray | None = None

    def by_class(self, num_classes: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(scores of positives, scores of negatives) of every class in turn."""
        if self.classes is None:
            for a in range(num_classes):
                own = self.labels == a
                yield self.values[own, a], self.values[~own, a]
            return
        classes, values = self.classes.reshape(-1), self.values.reshape(-1)
        own = (self.classes == self.labels[:, None]).reshape(-1)
        order = np.argsort(classes, kind="stable")
        ends = np.searchsorted(classes[order], np.arange(num_classes + 1))
        for a in range(num_classes):
            mine = order[ends[a] : ends[a + 1]]
            yield values[mine[own[mine]]], values[mine[~own[mine]]]


def every_class(family: CodedFamily) -> Function:
    """(variables, batch) -> scores of all classifiers, [B, K].

    The classifiers are physically small: classes are mapped over gathered weights, whose shapes
    are the same for all as their codewords have equal weight.  Branches that are concatenated
    cannot be taken out, only silenced.
    """
    model, first = family.model, next(iter(family.schemes))
    classes = jnp.arange(model.num_classes)
    if model.aggregate != "sum":
        pairs = every_pair(family)

        def silenced(variables: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
            shape = (len(batch["label"]), len(classes))
            return pairs(variables, {**batch, "classes": jnp.broadcast_to(classes, shape)})

        return silenced
    keep = {
        block: jnp.asarray(np.stack([np.flatnonzero(word) for word in scheme.codewords]))
        for block, scheme in family.schemes.items()
    }
    small = slim.slim_model(model, {block: kept[0] for block, kept in keep.items()}, [0])

    def run(variables: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
        features = forward(model, variables, batch["image"], stop=first).features

        def score(of: tuple[dict[str, jax.Array], jax.Array]) -> jax.Array:
            weights = slim.slim_variables(model, variables, of[0], of[1][None])
            return forward(small, weights, features, start=first).logits[:, 0]

        return jax.lax.map(score, (keep, classes)).T

    return run


def every_pair(family: CodedFamily) -> Function:
    """(variables, batch with "classes" [B, m]) -> scores of those pairs, [B, m].

    Every image has its own classes, hence its own branches: they are silenced by masks.
    """
    model, first = family.model, next(iter(family.schemes))
    words = {b: jnp.asarray(s.codewords, jnp.float32) for b, s in family.schemes.items()}

    def run(variables: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
        features = forward(model, variables, batch["image"], stop=first).features

        def score(classes: jax.Array) -> jax.Array:
            kept = {block: word[classes] for block, word in words.items()}
            logits = forward(model, variables, features, start=first, remove=kept).logits
            return jnp.take_along_axis(logits, classes[:, None], axis=1)[:, 0]

        return jax.lax.map(score, jnp.maximum(batch["classes"], 0).T).T

    return run


def choose_classes(n: int, num_classes: int, count: int, seed: int) -> np.ndarray:
    """``count`` distinct random classes for each of n images of no class, int32 [n, count]."""
    random = np.random.default_rng(seed)
    lots = (random.random(num_classes) for _ in range(n))
    return np.stack([np.argpartition(lot, count - 1)[:count] for lot in lots]).astype(np.int32)

"""Accuracy when active or inactive branches of one block are taken out (4.2, Fig. 2a)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from branchnets.families.coded.analysis.parts import forward, with_randomness
from branchnets.families.coded.codes import CodingScheme
from branchnets.families.study import Subject

if TYPE_CHECKING:
    from branchnets.families.coded.family import CodedFamily

ACTIVE, INACTIVE = "active", "inactive"
#: The digit of the codeword of a branch of each kind.
DIGIT = {INACTIVE: 0, ACTIVE: 1}


@dataclasses.dataclass(frozen=True)
class Removal:
    """What taking branches out of one block does.

    Attributes:
      block: its name.
      kinds: of each measurement, ``"active"`` or ``"inactive"``.
      removed: k of each, [M].
      draws: number of its draw, [M].
      intact: whether each example is right with nothing removed, [n] bool.
      right: whether it is right under each measurement, [n, M] bool.
    """

    block: str
    kinds: tuple[str, ...]
    removed: np.ndarray
    draws: np.ndarray
    intact: np.ndarray
    right: np.ndarray

    @property
    def accuracies(self) -> np.ndarray:
        """Accuracy of each measurement, [M]."""
        return self.right.mean(0)

    def curve(self, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(k, mean accuracy, standard deviation over draws) from k = 0, each [1 + most k]."""
        mine = np.array([name == kind for name in self.kinds])
        ks = np.unique(self.removed[mine])
        groups = [self.accuracies[mine & (self.removed == k)] for k in ks]
        means = [self.intact.mean(), *(g.mean() for g in groups)]
        spreads = [0.0, *(g.std(ddof=1) if len(g) > 1 else 0.0 for g in groups)]
        return np.array([0, *ks]), np.array(means), np.array(spreads)

    def all_removed(self, kind: str) -> np.ndarray:
        """Whether each example is right with every branch of a kind removed, [n] bool."""
        ks = np.where([name == kind for name in self.kinds], self.removed, 0)
        return self.right[:, int(np.argmax(ks))]


def measurements(scheme: CodingScheme, draws: int) -> list[tuple[str, int, int]]:
    """(kind, k, draw) of all that is measured on a block; all branches can be drawn in one way."""
    most = {ACTIVE: scheme.active, INACTIVE: scheme.branches - scheme.active}
    return [
        (kind, k, draw)
        for kind, largest in most.items()
        for k in range(1, largest + 1)
        for draw in range(draws if k < largest else 1)
    ]


def draw_masks(key: jax.Array, index: jax.Array, members: jax.Array, k: jax.Array) -> jax.Array:
    """Takes k of the given branches away from every example, each example its own k.

    Args:
      key: of this measurement.
      index: place of each example in its split, [B]: the draw depends on nothing else, whatever
        the batch.
      members: 1 for the branches to choose among, [B, N].
      k: how many; may be traced.

    Returns:
      [B, N] float32, 0 for the removed ones.
    """
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(index)
    lots = jax.vmap(lambda one: jax.random.uniform(one, members.shape[1:]))(keys)
    lots = jnp.where(members > 0, lots, 2.0)
    # Rank by counting smaller lots: branches are few, and a sort takes seconds to compile.  Equal
    # lots go by place.
    mine, other, place = lots[:, :, None], lots[:, None, :], jnp.arange(lots.shape[1])
    earlier = (other < mine) | ((other == mine) & (place < place[:, None]))
    rank = jnp.sum(earlier, axis=-1)
    return ((rank >= k) | (members == 0)).astype(jnp.float32)


def remover(
    family: CodedFamily, block: str, cells: list[tuple[str, int, int]]
) -> Callable[[Any, Mapping[str, jax.Array]], dict[str, jax.Array]]:
    """(variables, batch of ``with_randomness``) -> "intact" [B] and "right" [B, M], bool.

    What comes before the block is computed once for all measurements; so is what inside it does
    not depend on the draw, as XLA moves that out of the loop.
    """
    model, words = family.model, jnp.asarray(family.schemes[block].codewords)
    codes = jnp.array(
        [(DIGIT[kind], k, draw) for kind, k, draw in [(ACTIVE, 0, 0), *cells]], jnp.int32
    )

    def run(variables: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        features = forward(model, variables, batch["image"], stop=block).features
        own = words[batch["label"]]

        def measure(cell: jax.Array) -> jax.Array:
            mine = jax.random.wrap_key_data(batch["key"][0])
            for part in cell:  # kind, k, draw
                mine = jax.random.fold_in(mine, part)
            members = (own == cell[0]).astype(jnp.float32)
            kept = draw_masks(mine, batch["index"], members, cell[1])
            output = forward(model, variables, features, start=block, remove={block: kept})
            return jnp.argmax(output.logits, axis=-1) == batch["label"]

        right = jax.lax.map(measure, codes).T
        return {"intact": right[:, 0], "right": right[:, 1:]}

    return run


def remove(
    family: CodedFamily,
    subject: Subject,
    block: str,
    cells: list[tuple[str, int, int]],
    split: str = "test",
) -> Removal:
    """Measures a list of (kind, k, draw) on one block."""
    found = subject.map(
        remover(family, block, cells),
        with_randomness(subject.examples(split), subject.seed, f"specialisation/{block}"),
        f"removing branches of {block}",
    )
    kinds, ks, draws = zip(*cells, strict=True)
    return Removal(
        block, kinds, np.array(ks), np.array(draws), found["intact"], np.asarray(found["right"])
    )

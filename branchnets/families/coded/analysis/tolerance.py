"""What a code tolerates: decoding when branches are silent that should work, or the reverse.

The paper's reason for rule B (4.4): the farther apart the codewords, the more branches must be
wrongly active or inactive before the decoder answers wrongly.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from branchnets.families.base import purpose_key
from branchnets.families.coded import losses
from branchnets.families.coded.analysis import early, parts
from branchnets.families.coded.codes import CodingScheme
from branchnets.families.study import Subject
from branchnets.report import style
from branchnets.report.content import Figure, Section, Table
from branchnets.report.stats import proportion_interval

if TYPE_CHECKING:
    from branchnets.families.coded.family import CodedFamily


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How one block's decoder stands wrong branches.

    Attributes:
      scheme: of the block.
      accuracy: with the network's own energies and t wrong branches, [draws, N+1].
      ideal: the same with energies that equal the codeword, [draws, N+1].
      distances: Hamming distance between the codewords of label and answer of every example that
        is decoded wrongly with nothing flipped, [wrong].
    """

    scheme: CodingScheme
    accuracy: np.ndarray
    ideal: np.ndarray
    distances: np.ndarray

    @property
    def guaranteed(self) -> int:
        """Wrong branches that exact codewords always survive, floor((H_min - 1) / 2)."""
        return (self.scheme.min_distance - 1) // 2


def flip(energies: jax.Array, words: jax.Array, wrong: jax.Array) -> jax.Array:
    """Makes branches do the opposite of what the code asks: silent, or at full energy.

    Args:
      energies: E(t̄), [n, N], sum N.
      words: codeword of each example's class, [n, N].
      wrong: 1 for the branches to spoil, [n, N].
    """
    full = words.shape[-1] / jnp.sum(words, axis=-1, keepdims=True)  # N / N_act, Eq. 5's target
    return jnp.where(wrong > 0, full * (1.0 - words), energies)


def measure(
    energies: np.ndarray, labels: np.ndarray, scheme: CodingScheme, draws: int, seed: int
) -> Tolerance:
    """Decodes with t = 0 to N random branches of every example spoiled.

    Args:
      energies: of one block, [n, N].
      labels: [n].
      scheme: the block's.
      draws: independent choices of the branches.
      seed: of the choices.
    """
    codewords = jnp.asarray(scheme.codewords)
    words = codewords[labels].astype(jnp.float32)
    branches = scheme.branches
    perfect = words * (branches / scheme.active)

    def right(values: jax.Array, wrong: jax.Array) -> jax.Array:
        answer, _ = losses.decode(flip(values, words, wrong), codewords)
        return jnp.mean(answer == labels)

    @jax.jit
    def one_draw(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        order = jnp.argsort(jax.random.uniform(key, words.shape), axis=-1)
        rank = jnp.argsort(order, axis=-1)

        def count(t: jax.Array) -> tuple[jax.Array, jax.Array]:
            wrong = (rank < t).astype(jnp.float32)
            return right(jnp.asarray(energies), wrong), right(perfect, wrong)

        return jax.lax.map(count, jnp.arange(branches + 1))

    keys = jax.random.split(purpose_key(jax.random.key(seed), "tolerance"), draws)
    own, ideal = zip(*(jax.device_get(one_draw(key)) for key in keys), strict=True)
    answer = np.asarray(losses.decode(jnp.asarray(energies), codewords)[0])
    missed = answer != labels
    distances = np.sum(
        scheme.codewords[labels[missed]] != scheme.codewords[answer[missed]], axis=-1
    )
    return Tolerance(scheme, np.stack(own), np.stack(ideal), distances)


def section(family: CodedFamily, subject: Subject) -> Section | None:
    """Tolerance of every coded block; None without coded blocks."""
    if not family.schemes:
        return None
    found = early.energies(family, subject)
    labels = early.labels(family, subject)
    draws = parts.number_option(subject, "draws", 5, 1)
    blocks = {
        name: measure(found[name], labels, scheme, draws, subject.seed)
        for name, scheme in family.schemes.items()
    }
    last = list(blocks)[-1]
    figures = {
        name: {
            "min_distance": one.scheme.min_distance,
            "guaranteed": one.guaranteed,
            "accuracy": one.accuracy.mean(0).tolist(),
        }
        for name, one in blocks.items()
    }
    return Section(
        "What the code tolerates",
        _text(last, blocks[last], len(labels), draws),
        (_figure(blocks, draws),),
        (_table(blocks, len(labels)), _mistakes(blocks)),
        figures,
    )


def _text(name: str, one: Tolerance, n: int, draws: int) -> str:
    mean = one.accuracy.mean(0)
    half = int(np.argmax(mean < mean[0] / 2)) if (mean < mean[0] / 2).any() else len(mean) - 1
    text = (
        "Decoding (Eq. 7) compares a block's energies with the codewords. Here t random branches "
        "of every image are made to do the opposite of what the code asks, silent where they "
        "should work and at full energy N / N_act where they should be silent, and the energies "
        f"are decoded again ({n:,} test images, {draws} draws). Exact codewords survive every "
        "choice of t < H_min / 2 branches; real energies are not exact, so they may survive fewer, "
        "and a random choice is rarely the worst one, so both may survive more.\n\n"
        f"{name} has a code of H_min {one.scheme.min_distance}, which guarantees t = "
        f"{one.guaranteed}. Its decoder is right for {mean[0]:.1%} of the images as they are, for "
        f"{mean[1]:.1%} with one wrong branch and for {mean[2]:.1%} with two; half of what it knew "
        f"is gone at t = {half}."
    )
    if not len(one.distances):
        return text + " It makes no mistake on these images."
    pairs = _pair_distances(one.scheme)
    return text + (
        f" The {len(one.distances)} images that it gets wrong are taken for classes whose "
        f"codewords are {one.distances.mean():.1f} digits away on average; two classes drawn at "
        f"random are {pairs.mean():.1f} digits apart."
    )


def _pair_distances(scheme: CodingScheme) -> np.ndarray:
    words = scheme.codewords.astype(np.int64)
    distance = 2 * (scheme.active - words @ words.T)
    return distance[np.triu_indices(len(words), 1)]


def _figure(blocks: dict[str, Tolerance], draws: int) -> Figure:
    drawing, axes = style.figure()
    for i, (name, one) in enumerate(blocks.items()):
        colour = style.PALETTE[i % len(style.PALETTE)]
        t = np.arange(one.accuracy.shape[1])
        axes.plot(
            t, 100 * one.accuracy.mean(0), color=colour, marker="o", markersize=4,
            label=f"{name} (H_min {one.scheme.min_distance})",
        )  # fmt: skip
        axes.plot(t, 100 * one.ideal.mean(0), color=colour, linestyle=":", linewidth=1)
    style.label(axes, "branches that do the opposite of the code, t", "decoding accuracy (%)")
    axes.xaxis.get_major_locator().set_params(integer=True)
    style.legend(axes)
    return Figure(
        "rule_b_tolerance",
        f"Early decoding of test images with t random wrong branches, mean of {draws} draws. "
        "Dotted: energies that equal the codeword. What rule B of section 3.2.1 is for.",
        drawing,
    )


def _table(blocks: dict[str, Tolerance], n: int) -> Table:
    rows = []
    for name, one in blocks.items():
        for t in range(one.accuracy.shape[1]):
            mean, ideal = one.accuracy[:, t].mean(), one.ideal[:, t].mean()
            low, high = proportion_interval(round(float(mean) * n), n)
            rows.append(
                (name, one.scheme.min_distance, t, float(mean), low, high, float(ideal),
                 "yes" if t <= one.guaranteed else "no")
            )  # fmt: skip
    return Table(
        "rule_b_numbers",
        "Early decoding accuracy with t wrong branches, with Wilson's 95 % interval for so many "
        "images; that of exact codewords; and whether the distance guarantees that.",
        ("block", "H_min", "t", "accuracy", "from", "to", "exact codewords", "guaranteed"),
        tuple(rows),
    )


def _mistakes(blocks: dict[str, Tolerance]) -> Table:
    rows = []
    for name, one in blocks.items():
        pairs = _pair_distances(one.scheme)
        for distance in np.unique(pairs):
            made = int(np.sum(one.distances == distance))
            share = made / len(one.distances) if len(one.distances) else None
            rows.append((name, int(distance), float(np.mean(pairs == distance)), made, share))
    return Table(
        "rule_b_mistakes",
        "Distance between the codewords of the label and of the wrong answer: share among all "
        "pairs of classes, and among the decoder's mistakes.",
        ("block", "distance", "share of pairs", "mistakes", "share of mistakes"),
        tuple(rows),
    )

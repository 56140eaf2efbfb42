"""Early decoding (4.4, Eq. 7), and leaving the network once a decoder is confident."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from branchnets.counting import describe
from branchnets.errors import DataError
from branchnets.families.coded import losses
from branchnets.families.coded.analysis.parts import forward
from branchnets.families.coded.codes import CodingScheme
from branchnets.families.coded.model import CodedResNeXt
from branchnets.families.study import Subject

if TYPE_CHECKING:
    from branchnets.families.coded.family import CodedFamily

FINAL = "final"


@dataclasses.dataclass(frozen=True)
class Decoded:
    """What every decoder says of every example; the last one is the network's output.

    Attributes:
      names: coded blocks in order, then ``"final"``.
      right: whether the answer is the label, [n, L+1] bool.
      top5: whether the label is among the five best, [n, L+1] bool.
      confidence: of the answer, [n, L+1] float32.
    """

    names: tuple[str, ...]
    right: np.ndarray
    top5: np.ndarray
    confidence: np.ndarray


def decoders(family: CodedFamily) -> Callable[[Any, Mapping[str, jax.Array]], dict[str, jax.Array]]:
    """(variables, batch) -> "right", "top5", "confidence", each [B, L+1]."""

    def run(variables: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        output = forward(family.model, variables, batch["image"])
        return _said_by_all(family, output, batch["label"])

    return run


def _said_by_all(family: CodedFamily, output: Any, labels: jax.Array) -> dict[str, jax.Array]:
    words = {block: jnp.asarray(s.codewords) for block, s in family.schemes.items()}
    outputs = [losses.decoder_logits(output.energies[b], w) for b, w in words.items()]
    columns = [_said(logits, labels) for logits in [*outputs, output.logits]]
    return jax.tree.map(lambda *parts: jnp.stack(parts, axis=1), *columns)


def _said(logits: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
    own = jnp.take_along_axis(logits, labels[:, None], axis=1)
    # Equal logits are ranked by class index, as argmax does.
    earlier = jnp.arange(logits.shape[-1]) < labels[:, None]
    rank = jnp.sum((logits > own) | ((logits == own) & earlier), axis=1)
    confidence = jnp.max(jax.nn.softmax(logits.astype(jnp.float32)), axis=1)
    return {"right": rank == 0, "top5": rank < 5, "confidence": confidence}


def decode(family: CodedFamily, subject: Subject, split: str = "test") -> Decoded:
    """Runs every decoder over a split; over the test split once, however often it is asked for."""
    if split == "test":
        found = _test_pass(family, subject)["decoded"]
    else:
        found = subject.map(decoders(family), split, f"early decoding of {split} images")
    return Decoded((*family.schemes, FINAL), **found)


def energies(family: CodedFamily, subject: Subject) -> dict[str, np.ndarray]:
    """Coded block -> energies of every test image, [n, N], from the pass of :func:`decode`."""
    return _test_pass(family, subject)["energies"]


def labels(family: CodedFamily, subject: Subject) -> np.ndarray:
    """int32 [n], of the test images of :func:`energies`: those that can be read."""
    return _test_pass(family, subject)["label"]


def _test_pass(family: CodedFamily, subject: Subject) -> dict[str, Any]:
    def run(variables: Any, batch: Mapping[str, jax.Array]) -> dict[str, Any]:
        output = forward(family.model, variables, batch["image"])
        decoded = _said_by_all(family, output, batch["label"])
        return {"decoded": decoded, "energies": output.energies, "label": batch["label"]}

    title = "energies and early decoding of test images"
    return subject.once("coded/test", lambda: subject.map(run, "test", title))


def macs_until(
    model: CodedResNeXt, schemes: Mapping[str, CodingScheme], image_shape: tuple[int, ...]
) -> dict[str, int]:
    """Multiply-adds that one image has cost when each decoder answers, ``"final"`` included.

    A block's energies need its 1x1 reduction, its grouped convolution and the second moments of
    their output, but neither its expansion nor its shortcut; blocks before it are run whole, and
    all decoders on the way are asked (K N each, also in ``"final"``).
    """
    rows = describe(model, image_shape, depth=3).stages
    cost, spent = {}, sum(row.macs for row in rows if row.name.startswith("stem"))
    asked = 0
    for name, spec in model.blocks().items():
        mine = {r.name[len(name) :]: r for r in rows if (r.name + "/").startswith(f"{name}/")}
        if name in schemes:
            height, width, inner = mine["/branch_conv"].output_shape or (0, 0, 0)
            unneeded = mine["/shortcut"].macs
            if model.aggregate == "sum":
                unneeded += height * width * inner * spec.channels
            asked += schemes[name].codewords.size
            cost[name] = spent + asked + sum(r.macs for r in mine.values()) - unneeded
        spent += sum(r.macs for r in mine.values())
    spent += sum(row.macs for row in rows if row.name.startswith("head"))
    return {**cost, FINAL: spent + asked}


def choosing_split(subject: Subject) -> str | None:
    """Where thresholds are chosen: "validation" if there is one, else "train".

    Never the split that is studied; None where there is no other.
    """
    for name in ("validation", "train"):
        if name != subject.studied:
            try:
                subject.examples(name)
            except DataError:
                continue
            return name
    return None


def choose_thresholds(decoded: Decoded, steps: int = 51) -> np.ndarray:
    """Thresholds of confidence from which an example leaves, one row an operating point, [T, L].

    The thresholds of all blocks move together: each is the q-quantile of that block's own
    confidences, q from 0 to 1 in equal steps.  At q = 0 everything leaves at the first decoder, at
    q = 1 nothing before the end.

    Args:
      decoded: of the examples whose confidences count; labels are not looked at.
      steps: T, both ends included.
    """
    early = decoded.confidence[:, :-1]
    quantiles = np.linspace(0, 1, steps)[1:-1]
    # method "lower": a confidence that occurs, so that rounding keeps nobody from leaving.
    inner = np.quantile(early, quantiles, axis=0, method="lower")
    end = np.full((1, early.shape[1]), np.inf)
    return np.concatenate([-end, inner, end])


@dataclasses.dataclass(frozen=True)
class Leaving:
    """The trade of accuracy for multiply-adds, one entry an operating point.

    Attributes:
      right: whether the answer with which an example leaves is the label, [T, n] bool.
      macs: mean of one image, [T].
      left: share of examples that leave at each decoder, [T, L+1].
    """

    right: np.ndarray
    macs: np.ndarray
    left: np.ndarray

    @property
    def accuracy(self) -> np.ndarray:
        """Share of right answers, [T]."""
        return self.right.mean(1)


def leave_early(decoded: Decoded, macs: np.ndarray, thresholds: np.ndarray) -> Leaving:
    """An example leaves at the first block whose decoder is confident enough.

    Args:
      decoded: what the decoders say.
      macs: until each answer, [L+1].
      thresholds: from :func:`choose_thresholds`, of other examples, [T, L].
    """
    n = len(decoded.right)
    right, spent, left = [], [], []
    for row in thresholds:
        sure = decoded.confidence[:, :-1] >= row
        at = np.argmax(np.concatenate([sure, np.ones((n, 1), bool)], axis=1), axis=1)
        right.append(decoded.right[np.arange(n), at])
        spent.append(macs[at].mean())
        left.append(np.bincount(at, minlength=len(macs)) / n)
    return Leaving(np.array(right), np.array(spent), np.array(left))


def cheapest(leaving: Leaving, loss: float) -> int:
    """The operating point of fewest multiply-adds that loses at most so much accuracy."""
    good = leaving.accuracy >= leaving.accuracy[-1] - loss - 1e-9
    return int(np.argmin(np.where(good, leaving.macs, np.inf)))

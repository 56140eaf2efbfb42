"""Binary classifiers taken out of a trained coded network, with thresholds, scores and sizes."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from branchnets.counting import count_parameters, describe
from branchnets.errors import ConfigError, unknown
from branchnets.families.coded import binary, negatives, slim
from branchnets.families.coded.analysis.parts import WithArrays
from branchnets.families.coded.model import CodedResNeXt
from branchnets.families.study import Examples, Option, Slimmed, Subject
from branchnets.latency import measure_latency

if TYPE_CHECKING:
    from branchnets.families.coded.family import CodedFamily

#: An unknown class is answered with all names, where there are no more of them.
_LISTED = 20

OPTIONS = (
    Option(
        "classes",
        (),
        "class whose binary classifier is taken out, a name or an index; repeated, a set of "
        "classes with one output each",
        flag="class",
        many=True,
        required=True,
    ),
    negatives.OPTION,
)


def extract(
    family: CodedFamily,
    subject: Subject,
    classes: str | int | Sequence[str | int],
    asked: Any = None,
) -> Slimmed:
    """The binary classifier of a class, or one network with those of several (4.3).

    The branches that work for none of the classes are gone.  The threshold of an output is that of
    best F1 on training images, not augmented, with as many negatives a positive as the test split
    has.  Everything is measured on the slimmed network itself.

    Args:
      family: with the full network and its coding schemes.
      subject: its weights and data.
      classes: names or indices, each once.
      asked: training negatives for each positive; see :data:`OPTIONS`.

    Raises:
      UserError: a class that does not exist or comes twice, a network that cannot be slimmed, or a
        split without positives.
    """
    slim.check_slimmable(family.model)
    names = _names(family)
    chosen = class_indices(classes, names)
    count = negatives.per_positive(asked, len(names))
    small, weights, _ = take_out(family, subject.variables, classes)
    thresholds, scores = _judge(
        small, dataclasses.replace(subject, variables=weights), chosen, count
    )
    outputs = tuple(names[k] for k in chosen)
    host = jax.tree.map(lambda x: np.asarray(x, np.float32), jax.device_get(weights))
    full = jax.device_get(subject.variables)
    record = {
        "class_indices": list(chosen),
        "branches": {
            block: kept.tolist() for block, kept in slim.keep_of(family.schemes, chosen).items()
        },
        "threshold_choice": "best F1 on un-augmented training images at the test split's ratio "
        "of negatives, " + ("all of them" if count is None else f"{count} drawn for each positive"),
        "scores_on": "test",
        "scores": dict(zip(outputs, scores, strict=True)),
        **sizes(family.model, small, full, host, subject.image_shape),
        "latency": measure_latency(
            {"this": (small, host), "parent": (family.model, full)}, subject.image_shape
        ),
    }
    return Slimmed(small, host, outputs, thresholds, record, _text(outputs, thresholds, record))


def take_out(
    family: CodedFamily, variables: Mapping[str, Any], classes: str | int | Sequence[str | int]
) -> tuple[CodedResNeXt, Any, str]:
    """The branches that work for some classes, and their logits: module, variables, words.

    Args:
      family: with the full network and its coding schemes.
      variables: of the full network.
      classes: names or indices, each once.

    Raises:
      UserError: a class that does not exist or comes twice, or a network that cannot be slimmed.
    """
    slim.check_slimmable(family.model)
    names = _names(family)
    chosen = class_indices(classes, names)
    keep = slim.keep_of(family.schemes, chosen)
    gather = jax.jit(lambda v: slim.slim_variables(family.model, v, keep, chosen))
    words = ("class " if len(chosen) == 1 else "classes ") + ", ".join(names[k] for k in chosen)
    return slim.slim_model(family.model, keep, chosen), gather(variables), words


def _names(family: CodedFamily) -> tuple[str, ...]:
    return family.class_names or tuple(map(str, range(family.model.num_classes)))


def class_indices(
    classes: str | int | Sequence[str | int], names: Sequence[str]
) -> tuple[int, ...]:
    """Indices of classes, or of one, given by name or index; a name comes before an index.

    Raises:
      ConfigError: none, one that does not exist, or one given twice.

    >>> class_indices(["cat", 0], ["dog", "cat"])
    (1, 0)
    """
    if isinstance(classes, str | int):
        classes = (classes,)
    if not classes:
        raise ConfigError("name the class whose classifier is to be taken out, such as --class=0")
    found: list[int] = []
    for given in classes:
        index = _index(given, names)
        if index in found:
            raise ConfigError(f"class {names[index]!r} is given twice; name each class once")
        found.append(index)
    return tuple(found)


def _index(given: str | int, names: Sequence[str]) -> int:
    text = str(given)
    if isinstance(given, str) and text in names:
        return names.index(text)
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    if len(names) <= _LISTED:
        raise unknown("class", text, names)
    lower = {name.lower(): name for name in names}
    close = [lower[name] for name in difflib.get_close_matches(text.lower(), lower, 5, 0.5)]
    hint = f"Near ones: {', '.join(close)}. " if close else ""
    raise ConfigError(
        f"unknown class {text!r}. {hint}A class is one of the {len(names)} names of the data set, "
        f"from {names[0]!r} to {names[-1]!r}, or an index from 0 to {len(names) - 1}."
    )


def _judge(
    model: CodedResNeXt, subject: Subject, classes: tuple[int, ...], count: int | None
) -> tuple[tuple[float, ...], list[dict[str, float]]]:
    """(threshold, scores on test) of every class; ``subject`` has the slimmed variables."""

    def score(variables: Any, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        output: Any = model.apply(variables, batch["image"], train=False)
        return output.logits, batch["label"]

    def score_at(variables: Any, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return score(variables, batch)[0], batch["position"]

    labels = subject.labels("train")
    drawn = negatives.draw(labels, classes, count, subject.seed)
    needed = np.unique(np.concatenate([*drawn, np.flatnonzero(np.isin(labels, classes))]))
    examples = Chosen(subject.examples("train"), needed)
    train = np.zeros((len(labels), len(classes)), np.float32)
    read = np.zeros(len(labels), bool)  # an image that cannot be read has no score
    scores, at = subject.map(
        score_at, WithArrays(examples, position=needed.astype(np.int32)), "scores on train images"
    )
    train[at], read[at] = scores, True
    test, test_labels = subject.map(score, "test", "scores on test images")

    thresholds, results = [], []
    for i, k in enumerate(classes):
        own, other = test[test_labels == k, i], test[test_labels != k, i]
        positives, others = train[read & (labels == k), i], train[drawn[i][read[drawn[i]]], i]
        ratio = len(other) / max(len(own), 1)
        weight = negatives.weight_for(ratio, positives, others)
        thresholds.append(binary.best_threshold(positives, others, weight))
        found = binary.scores_at(thresholds[-1], own, other)
        results.append({**found, "positives": len(own), "negatives": len(other)})
    return tuple(thresholds), results


class Chosen:
    """Some examples of a split, in batches of the same size.

    Args:
      examples: a split.
      indices: of the examples that are wanted, increasing.
    """

    def __init__(self, examples: Examples, indices: np.ndarray) -> None:
        self._examples, self._indices = examples, indices
        self.num_examples, self.batch_size = len(indices), examples.batch_size

    @property
    def labels(self) -> np.ndarray:
        """int32 [m], of those that are wanted."""
        return self._examples.labels[self._indices]

    def __len__(self) -> int:
        return -(-self.num_examples // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, jax.Array]]:
        if self.num_examples == self._examples.num_examples:
            yield from self._examples
            return
        held: dict[str, np.ndarray] = {}
        sharding: dict[str, Any] = {}
        for number, batch in enumerate(self._examples):
            first = number * self.batch_size
            low, high = np.searchsorted(self._indices, (first, first + self.batch_size))
            rows = self._indices[low:high] - first
            sharding = {name: x.sharding for name, x in batch.items()}
            if len(rows):
                new = {name: np.asarray(x)[rows] for name, x in batch.items()}
                held = {n: np.concatenate([held[n], x]) if held else x for n, x in new.items()}
            while held and len(held["mask"]) >= self.batch_size:
                full = {name: x[: self.batch_size] for name, x in held.items()}
                held = {name: x[self.batch_size :] for name, x in held.items()}
                yield jax.device_put(full, sharding)
        if held and len(held["mask"]):
            missing = self.batch_size - len(held["mask"])
            padded = {
                n: np.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) for n, x in held.items()
            }
            yield jax.device_put(padded, sharding)


def sizes(
    full: CodedResNeXt,
    small: CodedResNeXt,
    full_variables: Any,
    small_variables: Any,
    image_shape: tuple[int, int, int],
) -> dict[str, Any]:
    """Parameters and multiply-adds of both networks: of everything, and as the paper counts.

    "macs" has all that one more image costs, the energies included.  "paper_counting" leaves out
    the projections of the shortcuts among the parameters, and the energies among the multiply-adds.
    """
    ours, theirs = describe(small, image_shape), describe(full, image_shape)
    pairs = {
        "parameters_without_projections": (
            slim.without_shortcuts(small_variables),
            slim.without_shortcuts(full_variables),
        ),
        "macs_of_layers": (
            slim.layer_macs(small, image_shape),
            slim.layer_macs(full, image_shape),
        ),
    }
    paper = {
        name: {"this": mine, "parent": whole, "ratio": mine / whole}
        for name, (mine, whole) in pairs.items()
    }
    parameters = count_parameters(small_variables)
    return {
        "parameters": parameters,
        "macs": ours.macs,
        "parent_parameters": theirs.parameters,
        "parent_macs": theirs.macs,
        "parameters_ratio": parameters / theirs.parameters,
        "macs_ratio": ours.macs / theirs.macs,
        "paper_counting": paper,
    }


def _text(outputs: Sequence[str], thresholds: Sequence[float], record: Mapping[str, Any]) -> str:
    paper, times = record["paper_counting"], record["latency"]["milliseconds"]
    header = f"{'class':<16} {'threshold':>9} {'precision':>9} {'recall':>7} {'F1':>7} {'AP':>7}"
    lines = [header]
    for name, threshold in zip(outputs, thresholds, strict=True):
        found = record["scores"][name]
        lines.append(
            f"{name:<16} {threshold:9.4f} {found['precision']:9.2%} {found['recall']:7.2%} "
            f"{found['f1']:7.4f} {found['average_precision']:7.4f}"
        )
    without, layers = paper["parameters_without_projections"], paper["macs_of_layers"]
    lines += [
        "(on test images; the threshold is from training images)",
        "",
        f"parameters   {record['parameters']:>13,}  {record['parameters_ratio']:6.1%} of the full "
        f"network's; without projections, the paper's way, {without['ratio']:.1%}",
        f"multiply-adds{record['macs']:>13,}  {record['macs_ratio']:6.1%}; without the energies "
        f"{layers['ratio']:.1%}",
    ]
    for batch, mine in times["this"].items():
        whole = times["parent"][batch]
        lines.append(
            f"milliseconds {mine:13.2f}  {mine / whole:6.1%} of {whole:.2f} for batches of {batch}"
        )
    return "\n".join(lines)

"""What a family is given to study a trained network or to take it apart, and what it gives back.

The tools call the hooks ``analyses``, ``merits`` and ``slim`` of a family with these; they never
ask which family it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import flax.linen as nn
import jax
import numpy as np

from branchnets.report.content import Section

PyTree = Any
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Option:
    """A request that a family's analyses or slimming understand; a flag of the tool.

    Attributes:
      name: the keyword in Python and, unless ``flag`` says otherwise, ``--name``.
      default: None for "not given"; its type is the type of the value, str for None.
      help: one line.
      flag: the command line's name without dashes, where it is not ``name``.
      many: may be repeated; the value is a tuple.
      required: must be given.
      check: called with a value that was given, before anything runs; raises ``UserError`` where
        it cannot be used.
    """

    name: str
    default: Any
    help: str
    flag: str | None = None
    many: bool = False
    required: bool = False
    check: Callable[[Any], None] | None = None


class Examples(Protocol):
    """A split in fixed-size batches, in order; each example once, the last batch padded.

    Batches have "image" float32 [B, H, W, C] normalised, "label" int32 [B] and "mask" float32 [B].
    """

    num_examples: int
    batch_size: int

    @property
    def labels(self) -> np.ndarray:
        """int32 [n], in order, without going through the images."""
        ...

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[dict[str, jax.Array]]: ...


def silent(items: Iterable[T], title: str, total: int | None = None) -> Iterable[T]:
    """A ``track`` that shows nothing."""
    del title, total
    return items


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A run at its end, as it is compared with others.

    Attributes:
      name: of its directory.
      config: dotted path -> value of every field: ``"model.name"``; tuples are lists.
      figures: path -> number or text in its summary.json: ``"test_accuracy"``, ``"test/accuracy"``.
    """

    name: str
    config: Mapping[str, Any]
    figures: Mapping[str, Any]


def no_history() -> Sequence[Mapping[str, Any]]:
    """The history of a network that comes from no run."""
    return ()


@dataclasses.dataclass(frozen=True)
class Subject:
    """A trained network and real data, as analyses see them.

    Attributes:
      variables: all collections, as ``model.apply`` takes them.
      extra: the family's own state.
      image_shape: (H, W, C).
      class_names: K names in label order.
      dataset: name of the data set.
      examples: split name -> its un-augmented examples; raises ``DataError`` for a split that is
        not there or is empty.  "test" gives the split that is to be studied.
      outside: out-of-distribution examples in the same form (their labels mean nothing), or None.
      outside_name: what they are.
      options: name -> value of the :class:`Option` s that the caller gave or left at default.
      seed: of everything random.
      batch_size: of training, B.
      track: wraps an iterable in a progress bar: ``track(items, title, total)``.
      studied: the data set's own name of the split that "test" gives.
      history: reads the lines that training wrote, oldest first: "step", "split", "epoch" and the
        metrics by name (see :class:`branchnets.engine.records.logging.MetricWriter`).
      others: finished runs to compare with, this one among them where it is finished.
      metrics: what evaluation gives of the split that is studied; empty where it was not asked for.
    """

    variables: PyTree
    extra: PyTree
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    dataset: str
    examples: Callable[[str], Examples]
    outside: Examples | None = None
    outside_name: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0
    batch_size: int = 64
    track: Callable[..., Iterable[Any]] = silent
    studied: str = "test"
    history: Callable[[], Sequence[Mapping[str, Any]]] = no_history
    others: tuple[FinishedRun, ...] = ()
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    _known: dict[str, Any] = dataclasses.field(default_factory=dict, init=False, compare=False)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What ``make`` gives, which several analyses need: made at the first call, then kept.

        A subject with other fields (``dataclasses.replace``) starts anew.
        """
        if name not in self._known:
            self._known[name] = make()
        return self._known[name]

    def map(
        self, function: Callable[[PyTree, Mapping[str, jax.Array]], PyTree], split: Any, title: str
    ) -> PyTree:
        """Applies a function to every batch and gathers what it gives for each example.

        Args:
          function: (variables, batch) -> pytree of [B, ...]; jitted here.
          split: a split's name, or examples.
          title: of the progress bar.

        Returns:
          The same pytree of numpy arrays [n, ...], padding left out.
        """
        examples = self.examples(split) if isinstance(split, str) else split
        step = jax.jit(function)
        parts = []
        for batch in self.track(examples, title, len(examples)):
            kept = np.asarray(batch["mask"]) > 0
            result = jax.device_get(step(self.variables, batch))
            parts.append(jax.tree.map(lambda x, kept=kept: np.asarray(x)[kept], result))
        return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)

    def labels(self, split: str) -> np.ndarray:
        """int32 [n], the labels of a split in order.

        Those of images that cannot be read are among them (``data.on_error="skip"``), and what
        :meth:`map` gives has no such images: gather ``batch["label"]`` there where both are needed.
        """
        return np.asarray(self.examples(split).labels, np.int32)


@dataclasses.dataclass(frozen=True)
class Analysis:
    """One section of a family's report.

    Attributes:
      title: shown while it runs.
      run: makes the section; returns None where the network or the data has nothing to show.
      options: what it understands in ``Subject.options``.
    """

    title: str
    run: Callable[[Subject], Section | None]
    options: tuple[Option, ...] = ()


@dataclasses.dataclass(frozen=True)
class Panel:
    """One panel in the figures of a sweep.

    Attributes:
      title: what it shows.
      y: the name of its axis.
      figures: shell patterns of names in summary.json and merits: ``early_decoding_accuracy/*``.
      percent: whether they are parts of one, to be shown as percentages.
    """

    title: str
    y: str
    figures: tuple[str, ...]
    percent: bool = False


@dataclasses.dataclass(frozen=True)
class Reference:
    """A number that the paper prints.

    Attributes:
      model, dataset: the names for which it holds.
      figure: its name in summary.json or merits.
      value: in the units of that figure.
      fields: path in the config -> value; without any it holds beside every point, as a baseline.
      text: shown with the number.
    """

    model: str
    dataset: str
    figure: str
    value: float
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    text: str = "paper"


@dataclasses.dataclass(frozen=True)
class Slimmed:
    """A smaller network taken out of a trained one: an ordinary instance of the same module.

    Attributes:
      model: the module, with smaller numbers.
      variables: its own, in float32.
      outputs: the name of each logit.
      thresholds: with them, output i says yes where its logit is at least thresholds[i]; None: the
        largest logit is the answer.
      record: what goes into the folder's JSON beside this: counts, scores, choices.
      text: for the terminal.
    """

    model: nn.Module
    variables: PyTree
    outputs: tuple[str, ...]
    thresholds: tuple[float, ...] | None
    record: Mapping[str, Any]
    text: str = ""

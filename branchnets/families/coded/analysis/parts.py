"""What several analyses share: blocks, batches with more in them, numbers in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from branchnets.errors import ConfigError
from branchnets.families.base import purpose_key
from branchnets.families.coded.model import CodedResNeXt
from branchnets.families.study import Examples, Subject


def forward(model: CodedResNeXt, variables: Any, images: jax.Array, **call: Any) -> Any:
    """The ``CodedOutput`` of the network or a part of it (``start``, ``stop``, ``remove``)."""
    return model.apply(variables, images, train=False, **call)


class WithArrays:
    """Examples whose batches hold more arrays: rows of them, padded as the images are.

    Args:
      examples: to extend.
      **arrays: name -> [n, ...], one row an example.
    """

    def __init__(self, examples: Examples, **arrays: np.ndarray) -> None:
        self._examples, self._arrays = examples, arrays
        self.num_examples, self.batch_size = examples.num_examples, examples.batch_size

    @property
    def labels(self) -> np.ndarray:
        """int32 [n]."""
        return self._examples.labels

    def __len__(self) -> int:
        return len(self._examples)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for start, batch in enumerate(self._examples):
            rows = slice(start * self.batch_size, (start + 1) * self.batch_size)
            yield {**batch, **{name: self._rows(a[rows]) for name, a in self._arrays.items()}}

    def _rows(self, rows: np.ndarray) -> np.ndarray:
        missing = self.batch_size - len(rows)
        return np.pad(rows, [(0, missing), *[(0, 0)] * (rows.ndim - 1)])


def with_randomness(examples: Examples, seed: int, purpose: str) -> WithArrays:
    """Examples whose batches have "index" int32 [B], the place of each in the split, and "key".

    "key" is the data of the key of (seed, purpose), repeated [B, 2] uint32: as an argument, it
    lets runs of different seeds share compiled programs.
    """
    key = purpose_key(jax.random.key(seed), purpose)
    n = examples.num_examples
    return WithArrays(
        examples,
        index=np.arange(n, dtype=np.int32),
        key=np.tile(np.asarray(jax.random.key_data(key)), (n, 1)),
    )


def paper_block(model: CodedResNeXt) -> str:
    """The block of Fig. 2a: the last of c3, and in networks with a c5 the second of that.

    Where that block is not coded: the last coded block.
    """
    coded = list(model.coded_blocks())
    last = list(model.blocks())[-1].partition("/")[0]
    wanted = [b for b in coded if b.startswith("stage3/")][-1:]
    if last == "stage5":
        wanted = [b for b in coded if b.startswith("stage5/")][:2][-1:]
    return (wanted or coded[-1:])[0]


def number_option(subject: Subject, name: str, default: int, minimum: int) -> int:
    """An option that is a whole number.

    Raises:
      ConfigError: it is not, or too small.
    """
    return whole_number(name, subject.options.get(name, default), minimum)


def whole_number(name: str, value: Any, minimum: int) -> int:
    """The value of an option that is a whole number; raises as :func:`number_option`."""
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = minimum - 1
    if number < minimum:
        raise ConfigError(f"{name} must be a whole number of at least {minimum}, not {value!r}")
    return number


def on_cpu() -> bool:
    """Whether computing happens on processors without an accelerator."""
    return jax.default_backend() == "cpu"


def percent(share: float) -> str:
    """0.9861 -> "98.6 %"."""
    return f"{100 * share:.1f} %"


def points(change: float) -> str:
    """A change of a share in percentage points, signed: -0.013 -> "-1.3 points"."""
    return f"{100 * change:+.1f} points"


def between(interval: tuple[float, float], scale: float = 100.0) -> str:
    """An interval in words: "95 % interval 97.1 to 99.2"."""
    low, high = interval
    return f"95 % interval {scale * low:.1f} to {scale * high:.1f}"

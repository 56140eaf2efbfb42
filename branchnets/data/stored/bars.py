"""Bars that show how far the reading of data is, on standard error of the first process alone."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TypeVar

from jax._src.distributed import global_state  # jax.process_index would start the devices
from tqdm import tqdm

T = TypeVar("T")


def bar(items: Iterable[T], title: str, total: int, **options: Any) -> Iterable[T]:
    """The items, with a bar beside them.

    Args:
      items: of a loop.
      title: what it does.
      total: how many they are.
      **options: of tqdm.
    """
    silent = global_state.process_id != 0
    return tqdm(items, title, total, file=sys.stderr, disable=silent, **options)

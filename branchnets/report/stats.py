"""Intervals for figures that are measured on few samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np


def bootstrap(
    values: Any,
    statistic: Callable[..., Any] = np.mean,
    repeats: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of a statistic over samples drawn again with replacement.

    Source: B. Efron, "Bootstrap methods: another look at the jackknife", 1979.

    Args:
      values: [n] or [n, ...]; examples are drawn along the first axis. nan counts as a value.
      statistic: array like ``values`` -> a number.
      repeats: how often.
      confidence: share of the repeats inside the interval.
      seed: the same seed gives the same interval.

    Returns:
      (low, high); both nan where there is no value, both the statistic where there is one.
    """
    values = np.asarray(values)
    if not len(values):
        return math.nan, math.nan
    draw = np.random.default_rng(seed)
    found = [
        float(statistic(values[draw.integers(0, len(values), len(values))])) for _ in range(repeats)
    ]
    tail = (1 - confidence) / 2
    low, high = np.quantile(found, (tail, 1 - tail))
    return float(low), float(high)


def proportion_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    1927; unlike mean ± 1.96 standard errors it stays within 0..1 and is not empty at 0 or n.

    Args:
      successes: 0..n.
      n: trials.
      confidence: of the interval.

    Returns:
      (low, high) in 0..1; (0, 1) where n is 0.

    Raises:
      ValueError: successes outside 0..n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials")
    if n == 0:
        return 0.0, 1.0
    from scipy.stats import norm

    z = float(norm.ppf((1 + confidence) / 2))
    share, weight = successes / n, z * z / n
    centre = share + weight / 2
    half = z * math.sqrt((share * (1 - share) + weight / 4) / n)
    low, high = (centre - half) / (1 + weight), (centre + half) / (1 + weight)
    # At the ends the two terms cancel exactly; rounding must not say otherwise.
    return (0.0 if successes == 0 else low), (1.0 if successes == n else high)

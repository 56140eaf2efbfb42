"""Intervals against scipy's, and their ends."""

import numpy as np
import pytest
from scipy.stats import binomtest

from branchnets.report.stats import bootstrap, proportion_interval


@pytest.mark.parametrize(
    ("successes", "n"), [(0, 5), (5, 5), (1, 3), (7, 10), (356, 360), (9441, 10000)]
)
def test_the_proportion_interval_is_wilsons(successes, n):
    expected = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert proportion_interval(successes, n) == pytest.approx(tuple(expected), abs=1e-12)


def test_a_proportion_of_no_trials_is_unknown_and_nonsense_is_refused():
    assert proportion_interval(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="3 successes of 2"):
        proportion_interval(3, 2)


def test_the_bootstrap_is_seeded_and_as_wide_as_theory_says():
    values = np.random.default_rng(1).normal(5.0, 2.0, 400)
    low, high = bootstrap(values)
    assert (low, high) == bootstrap(values)
    assert (low, high) != bootstrap(values, seed=1)
    assert low < values.mean() < high
    # 2 * 1.96 standard errors, to the accuracy of a thousand repeats.
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_the_bootstrap_draws_whole_examples():
    pairs = np.stack([np.arange(50), np.arange(50)], axis=1)
    low, high = bootstrap(pairs, lambda x: np.abs(x[:, 0] - x[:, 1]).max(), repeats=50)
    assert (low, high) == (0.0, 0.0)


def test_the_bootstrap_of_little():
    assert np.isnan(bootstrap([])).all()
    assert bootstrap([3.0], repeats=10) == (3.0, 3.0)

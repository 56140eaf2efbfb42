"""Upper bounds on the number of words of one weight that are a distance apart.

A(n, d, w) is the largest number of words of length n and weight w with distances of d or more.
Distances of words of one weight are even.
"""

from __future__ import annotations

import functools
import math
from fractions import Fraction

import numpy as np
import scipy.optimize


def delsarte_bound(n: int, d: int, w: int) -> int:
    """Delsarte's linear-programming bound on A(n, d, w) in the Johnson scheme, rounded down.

    The mean numbers a_i of words at distance 2 i from a word satisfy, for k = 1 ... w,
    1 + sum_i a_i E_i(k) / v_i >= 0 with the Eberlein polynomials
    E_i(k) = sum_j (-1)^j C(k, j) C(w-k, i-j) C(n-w-k, i-j) and v_i = E_i(0); the bound is the
    largest 1 + sum_i a_i (Delsarte 1973, section 4.2.1).  Dividing by v_i keeps every coefficient
    in [-1, 1].  The value is that of a dual solution checked in exact arithmetic, so that it
    holds whatever the solver's rounding.

    Args:
      n: length, N.
      d: distance; odd counts as the next even one.
      w: weight, N_act, 0 ... n.
    """
    w, i_min = min(w, n - w), (d + 1) // 2
    if i_min <= 1:
        return math.comb(n, w)
    if i_min > w:
        return 1
    exact = _eigenvalues(n, w)
    rows = [exact[i] for i in range(i_min, w + 1)]
    # The dual: least 1 + sum_k y_k with y >= 0 and sum_k y_k E_i(k) / v_i <= -1 for every i.
    # Several units of y, since the solver's tolerances are absolute; what it gets wrong makes the
    # bound weaker, never false.
    table = np.array([[float(x) for x in row] for row in rows])
    best = math.comb(n, w)
    for unit in (1.0, 1e3, 1e6):
        solved = scipy.optimize.linprog(
            np.ones(w), A_ub=table, b_ub=np.full(len(rows), -1.0 / unit), method="highs"
        )
        if solved.x is None:
            continue
        y = [Fraction(max(float(value), 0.0)) for value in solved.x * unit]
        best = min(best, _certified(rows, y, best))
    return best


def _certified(rows: list[list[Fraction]], y: list[Fraction], otherwise: int) -> int:
    """floor(1 + sum y) after the least scaling of y that makes it feasible exactly."""
    least = min(-sum((a * b for a, b in zip(row, y, strict=True)), Fraction(0)) for row in rows)
    if least <= 0:
        return otherwise
    return math.floor(1 + sum(y, Fraction(0)) / least)


@functools.cache
def _eigenvalues(n: int, w: int) -> list[list[Fraction]]:
    """E_i(k) / v_i for i = 0 ... w (rows) and k = 1 ... w."""
    table = []
    for i in range(w + 1):
        v = math.comb(w, i) * math.comb(n - w, i)
        row = []
        for k in range(1, w + 1):
            terms = (
                (-1) ** j * math.comb(k, j) * math.comb(w - k, i - j) * math.comb(n - w - k, i - j)
                for j in range(min(i, k) + 1)
            )
            row.append(Fraction(sum(terms), v))
        table.append(row)
    return table


@functools.cache
def johnson_bound(n: int, d: int, w: int) -> int:
    """Johnson's bound on A(n, d, w): counting the ones of a column, and shared ones of pairs.

    A(n, d, w) <= floor(n / w A(n-1, d, w-1)) and <= floor(n / (n-w) A(n-1, d, w)); and M words
    whose columns are as even as can be share sum_c C(s_c, 2) ones, at most C(M, 2) (w - d/2)
    (Johnson 1962).
    """
    w, half = min(w, n - w), (d + 1) // 2
    if half <= 1:
        return math.comb(n, w)
    if half > w:
        return 1
    if half == w:
        return n // w
    bound = n * johnson_bound(n - 1, d, w - 1) // w
    bound = min(bound, n * johnson_bound(n - 1, d, w) // (n - w))
    shared = w - half
    if w * w > n * shared:  # then the pairs run out: M <= n (w - shared) / (w^2 - n shared)
        m = min(bound, n * (w - shared) // (w * w - n * shared))
        while m > 1 and _pairs_short(m, n, w, shared):
            m -= 1
        bound = m
    return bound


def _pairs_short(m: int, n: int, w: int, shared: int) -> bool:
    """Whether m words of weight w share more ones than m (m-1) / 2 pairs may."""
    low, more = divmod(m * w, n)
    ones = more * math.comb(low + 1, 2) + (n - more) * math.comb(low, 2)
    return ones > math.comb(m, 2) * shared


@functools.cache
def upper_bound(n: int, d: int, w: int) -> int:
    """The smaller of Delsarte's and Johnson's bounds on A(n, d, w)."""
    return min(delsarte_bound(n, d, w), johnson_bound(n, d, w))


def largest_distance(classes: int, branches: int, active: int) -> int:
    """The largest H_min that the bounds allow K words of N_act ones; 2 where K fills the space.

    One word has no distance; it gets the largest that two words could have.
    """
    low, high = 1, min(active, branches - active) + 1  # halves: possible, and not
    while high - low > 1:
        middle = (low + high) // 2
        enough = upper_bound(branches, 2 * middle, active) >= max(classes, 2)
        low, high = (middle, high) if enough else (low, middle)
    return 2 * low


def bound_name(n: int, d: int, w: int) -> str:
    """Which bound gives `upper_bound`, for messages."""
    least = upper_bound(n, d, w)
    return "linear-programming bound" if delsarte_bound(n, d, w) == least else "Johnson's bound"

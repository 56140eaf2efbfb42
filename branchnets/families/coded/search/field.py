"""Arithmetic of GF(2^m), with elements as integers whose bits are polynomial coefficients."""

from __future__ import annotations

import functools


@functools.cache
def powers_of_primitive(m: int) -> tuple[int, ...]:
    """1, a, a^2, ... a^(2^m - 2) for a root `a` of the least primitive polynomial of degree m."""
    order = (1 << m) - 1
    for polynomial in range((1 << m) + 1, 2 << m, 2):
        found, x = [], 1
        for _ in range(order):
            found.append(x)
            x <<= 1
            if x >> m:
                x ^= polynomial
            if x == 1:
                break
        if len(found) == order:
            return tuple(found)
    raise AssertionError(m)  # there is a primitive polynomial of every degree


def power(x: int, exponent: int, m: int) -> int:
    """x^exponent in GF(2^m); 0^0 is 1."""
    if exponent == 0:
        return 1
    if x == 0:
        return 0
    table = powers_of_primitive(m)
    return table[_logarithms(m)[x] * exponent % len(table)]


@functools.cache
def _logarithms(m: int) -> dict[int, int]:
    return {x: i for i, x in enumerate(powers_of_primitive(m))}

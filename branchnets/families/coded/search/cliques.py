"""Large sets of mutually compatible nodes: cliques of a graph."""

from __future__ import annotations

import numpy as np

from branchnets.families.coded.search.clock import Clock


def heavy_clique(
    adjacent: np.ndarray,
    weights: np.ndarray,
    target: int,
    rng: np.random.Generator,
    *,
    steps: int = 4000,
    patience: int = 400,
    clock: Clock | None = None,
) -> np.ndarray:
    """A clique of large weight, by a tabu search that adds a node and drops those it excludes.

    Args:
      adjacent: [n, n] bool, symmetric; the diagonal does not matter.
      weights: [n] positive integers.
      target: a weight that is enough.
      rng: decides between equals.
      steps: nodes added in all.
      patience: steps without a new best after which the search starts from another node.
      clock: ends the search early.

    Returns:
      Indices of the heaviest clique seen, ascending.
    """
    n, clock = len(weights), clock or Clock()
    if not n:
        return np.zeros(0, np.int64)
    weights = weights.astype(np.int32)
    excluded = ~adjacent
    np.fill_diagonal(excluded, False)
    best, best_weight = np.zeros(n, bool), 0
    step = 0
    while step < steps and best_weight < target:
        inside = np.zeros(n, bool)
        lost = np.zeros(n, np.int32)  # weight that adding a node would drop
        tabu = np.zeros(n, np.int64)
        weight = local_best = last = 0
        choice = int(rng.integers(n))
        while step < steps and step - last < patience and not (step % 64 == 63 and clock.expired):
            step += 1
            dropped = np.flatnonzero(inside & excluded[choice])
            for node in dropped:
                lost -= weights[node] * excluded[node]
            inside[dropped] = False
            tabu[dropped] = step + 2 + int(rng.integers(8))
            inside[choice] = True
            lost += weights[choice] * excluded[choice]
            weight += int(weights[choice] - weights[dropped].sum())
            if weight > local_best:
                local_best, last = weight, step
            if weight > best_weight:
                best, best_weight = inside.copy(), weight
                if weight >= target:
                    break
            gain = np.where(inside | (tabu > step), np.iinfo(np.int32).min, weights - lost)
            top = np.flatnonzero(gain == gain.max())
            choice = int(top[rng.integers(len(top))])
            if inside[choice] or tabu[choice] > step:
                break  # nothing may be added
        step += 1
        if clock.expired:
            break
    return np.flatnonzero(best)


def exact_clique(
    adjacent: np.ndarray, size: int, *, first: int | None = None, nodes: int = 200_000
) -> tuple[np.ndarray | None, bool]:
    """A clique of `size` nodes, or the proof that there is none, by branch and bound.

    Nodes are coloured so that no two of one colour are adjacent; a clique has at most one node of
    each colour (Tomita and Seki 2003).

    Args:
      adjacent: [n, n] bool, symmetric.
      size: nodes wanted.
      first: a node that may be assumed in the clique, by symmetry.
      nodes: branches after which the search gives up.

    Returns:
      (indices or None, whether the search was complete).
    """
    n = len(adjacent)
    rows = []
    for i in range(n):
        row = adjacent[i].copy()
        row[i] = False
        rows.append(int.from_bytes(np.packbits(row, bitorder="little").tobytes(), "little"))
    budget = [nodes]

    def colour(candidates: int) -> tuple[list[int], list[int]]:
        order, bound, colours = [], [], 0
        while candidates:
            colours += 1
            free = candidates
            while free:
                low = free & -free
                v = low.bit_length() - 1
                free &= ~(low | rows[v])
                candidates ^= low
                order.append(v)
                bound.append(colours)
        return order, bound

    def extend(chosen: list[int], candidates: int) -> list[int] | None:
        if len(chosen) >= size:
            return chosen
        order, bound = colour(candidates)
        for v, most in zip(reversed(order), reversed(bound), strict=True):
            if len(chosen) + most < size or budget[0] <= 0:
                return None
            budget[0] -= 1
            found = extend([*chosen, v], candidates & rows[v])
            if found is not None:
                return found
            candidates &= ~(1 << v)
        return None

    if first is None:
        found = extend([], (1 << n) - 1)
    else:
        found = extend([first], rows[first])
    return (None if found is None else np.array(sorted(found))), found is not None or budget[0] > 0

"""How long networks take for a batch, measured in turns on one device."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

PyTree = Any


def measure_latency(
    networks: Mapping[str, tuple[nn.Module, PyTree]],
    image_shape: tuple[int, int, int],
    batches: Sequence[int] = (1, 32),
    rounds: int = 10,
    seconds: float = 5.0,
) -> dict[str, Any]:
    """Median milliseconds of a forward pass; the networks take turns, so that both are hit by
    whatever else the machine does.

    Args:
      networks: name -> (module, its variables).
      image_shape: (H, W, C).
      batches: numbers of images.
      rounds: timed passes of each network, fewer where ``seconds`` are over (3 at least).
      seconds: of timing a batch size.

    Returns:
      For JSON: "device", "cores", and "milliseconds": name -> batch size as text -> median.
    """
    device = jax.local_devices()[0]
    found: dict[str, dict[str, float]] = {name: {} for name in networks}
    for batch in batches:
        steps = {n: compile_forward(*net, image_shape, batch) for n, net in networks.items()}
        for name, times in in_turn(steps, _turns(rounds, seconds)).items():
            found[name][str(batch)] = round(1e3 * statistics.median(times), 4)
    return {"device": device.device_kind, "cores": os.cpu_count(), "milliseconds": found}


def compile_forward(
    model: nn.Module, variables: PyTree, image_shape: tuple[int, int, int], batch: int
) -> Callable[[], None]:
    """A compiled forward pass on one device: a function that runs it and waits for it."""
    device = jax.local_devices()[0]
    variables = jax.device_put(jax.device_get(variables), device)
    images = jax.device_put(jnp.zeros((batch, *image_shape), jnp.float32), device)

    def forward(variables: PyTree, images: jax.Array) -> jax.Array:
        output: Any = model.apply(variables, images, train=False)
        return output.logits

    compiled = jax.jit(forward).lower(variables, images).compile()

    def run() -> None:
        jax.block_until_ready(compiled(variables, images))

    return run


def in_turn(steps: Mapping[str, Callable[[], Any]], turns: Iterable[Any]) -> dict[str, list[float]]:
    """Seconds of every step of every turn but the first, which is slower than the others.

    Args:
      steps: name -> a function that runs one step and returns when it is done.
      turns: as many as wanted, the first one included; may end when time is up.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in turns:
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    return {name: found[1:] for name, found in times.items()}


def _turns(rounds: int, seconds: float) -> Iterator[int]:
    """A first turn, then ``rounds``, or fewer (3 at least) where that takes longer."""
    yield 0
    begun = time.perf_counter()
    for done in range(rounds):
        if done >= 3 and time.perf_counter() - begun > seconds:
            return
        yield done + 1

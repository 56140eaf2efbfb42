"""Memory and time told before they hurt: what a run will need, against what there is.

Looked at three times, each before the memory is taken: the data set before it is put on the
devices, the state before it is made or restored, and the activations when the step is compiled.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
import socket
from collections.abc import Iterable, Iterator
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from branchnets.data import Dataset, Split
from branchnets.data.streamed.stream import AHEAD
from branchnets.engine.hosts import distributed
from branchnets.engine.leaves import nbytes
from branchnets.engine.records.logging import format_table
from branchnets.engine.records.progress import duration
from branchnets.engine.state import TrainState
from branchnets.errors import ConfigError, first_line
from branchnets.memory import Memory, beside_arguments

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Item:
    """Something that takes memory.

    Attributes:
      name: what it is.
      bytes: on each device, or on the host.
      change: what makes it smaller.
    """

    name: str
    bytes: int
    change: str


@dataclasses.dataclass(frozen=True)
class Budget:
    """What a run needs.

    Attributes:
      memory: what was free before any of it was taken.
      device: on each device.
      host: on this host besides.
    """

    memory: Memory
    device: tuple[Item, ...] = ()
    host: tuple[Item, ...] = ()

    def add(self, device: Iterable[Item] = (), host: Iterable[Item] = ()) -> Budget:
        """The budget with more items."""
        return dataclasses.replace(self, device=(*self.device, *device), host=(*self.host, *host))

    @property
    def room(self) -> int | None:
        """Bytes that are left on each device; None where it is not known."""
        memory = self.memory
        free = memory.device
        if memory.shared and memory.host is not None:
            free = (memory.host - sum(item.bytes for item in self.host)) // memory.devices
        return None if free is None else free - sum(item.bytes for item in self.device)

    def check(self) -> None:
        """Refuses what cannot fit.

        Raises:
          ConfigError: names the sizes, and the setting that makes the largest smaller.
        """
        memory = self.memory
        if memory.shared:
            everything = (*_times(self.device, memory.devices), *self.host)
            _refuse(everything, memory.host, "of host memory")
        else:
            _refuse(self.device, memory.device, "on each device")
            _refuse(self.host, memory.host, "of host memory")

    def table(self) -> str:
        """The items with their sizes, and what is free."""
        memory = self.memory
        on_device = sum(item.bytes for item in self.device)
        rows = [(item.name, size(item.bytes)) for item in self.device]
        rows.append(("together" + _free(memory.device), size(on_device)))
        rows += [(f"on the host: {item.name}", size(item.bytes)) for item in self.host]
        on_host = sum(item.bytes for item in self.host)
        if memory.shared:
            on_host += on_device * memory.devices
        rows.append(("on the host together" + _free(memory.host), size(on_host)))
        return format_table(rows, ("memory needed on each device", "size"))


def _free(free: int | None) -> str:
    return "" if free is None else f", of {size(free)} free"


def _times(items: Iterable[Item], devices: int) -> list[Item]:
    return [dataclasses.replace(item, bytes=devices * item.bytes) for item in items]


def _refuse(items: Iterable[Item], limit: int | None, where: str) -> None:
    items = sorted(items, key=lambda item: -item.bytes)
    total = sum(item.bytes for item in items)
    if limit is None or total <= limit:
        return
    shown = ", ".join(f"{item.name} {size(item.bytes)}" for item in items if item.bytes)
    raise ConfigError(
        f"this run needs {size(total)} {where}, and {size(limit)} are free: {shown}. "
        f"To make the largest part smaller: {items[0].change}."
    )


def size(count: int) -> str:
    """Bytes as text.

    >>> size(1_234_000_000), size(56_700_000), size(89_000), size(12)
    ('1.23 GB', '56.7 MB', '89 kB', '12 B')
    """
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count} B"


def agreed(memory: Memory) -> Memory:
    """What is free on every process: the least that any has, and on a host that several share its
    part of that host's.

    One process that refuses a run, or computes it in other parts, would leave the others waiting.
    """
    found = distributed.gathered([socket.gethostname(), memory.host, memory.device])
    on_host = collections.Counter(name for name, _, _ in found)
    hosts = [host // on_host[name] for name, host, _ in found if host is not None]
    devices = [device for _, _, device in found if device is not None]
    return dataclasses.replace(
        memory, host=min(hosts, default=None), device=min(devices, default=None)
    )


# What there is to be counted


def data(dataset: Dataset, memory: Memory) -> Budget:
    """The training split on the devices, before it is put there; nothing where it is streamed."""
    split = dataset.splits.get("train")
    if not isinstance(split, Split):
        return Budget(memory)
    change = (
        "data.stream=True reads images as they are needed, where the data set can; or lower "
        "data.train_size or data.image_size"
    )
    return Budget(memory, (Item("data set", split.images.nbytes + split.labels.nbytes, change),))


def of_state(state: TrainState, config: ConfigDict, inputs: Any) -> tuple[list[Item], list[Item]]:
    """What the state takes on each device, and what saving it and the input take on the host.

    Args:
      state: arrays or shapes.
      config: of the run.
      inputs: the training input; `host_bytes`, where it has it, is what its workers take.
    """
    model = "a smaller network (the fields of config.model)"
    weights = nbytes((state.params, state.model_state, state.extra))
    device = [Item("parameters and statistics", weights, model)]
    device.append(Item("optimiser state", nbytes(state.opt_state), model))
    if averages := nbytes(state.ema):
        device.append(Item("running averages", averages, "ema.decay=0, or " + model))
    host = [Item("copy of the state while it is saved", nbytes(state), model)]
    if workers := getattr(inputs, "host_bytes", 0):
        change = f"lower data.workers ({config.data.workers}) or batch_size ({config.batch_size})"
        host.append(Item("workers and batches in waiting", workers, change))
    return device, host


def check_shared(inputs: Any, config: ConfigDict, free: int | None) -> None:
    """Refuses workers whose images would not fit into shared memory: they would be killed.

    Args:
      inputs: the training input; `shared_bytes`, where it has it, is what its workers take.
      config: of the run.
      free: bytes of shared memory; None where it is not known.

    Raises:
      ConfigError: there is too little.
    """
    change = (
        f"lower data.workers ({config.data.workers}; 0 needs none), or give a container more, as "
        "docker run --shm-size=1g does"
    )
    item = Item("images between workers and trainer", getattr(inputs, "shared_bytes", 0), change)
    _refuse((item,), free, "of shared memory (/dev/shm)")


def of_batches(arrays: PyTree, config: ConfigDict) -> Item:
    """What streamed batches take on each device: the one in use, and those that lie ready."""
    held = (1 + AHEAD) * on_each_device(arrays)
    return Item("batches of images", held, f"lower batch_size ({config.batch_size})")


def of_step(stats: Any, config: ConfigDict, mesh: Mesh, others: Budget) -> list[Item]:
    """What a compiled step takes on each device besides the state.

    Args:
      stats: `memory_analysis()` of the compiled step; None where the platform tells nothing.
      config: of the run.
      mesh: the devices.
      others: what the run needs besides.
    """
    items: list[Item] = []
    if stats is not None:
        used = beside_arguments(stats)
        room = others.room
        change = smaller_step(config, mesh.size, used / room if room and room > 0 else None)
        items.append(Item("activations and workspace", used, change))
    return items


def smaller_step(config: ConfigDict, devices: int, factor: float | None = None) -> str:
    """What to change so that a step takes less memory.

    Args:
      config: of the run.
      devices: of the mesh.
      factor: how many times too large its activations are, where that is known.
    """
    batch, parts = config.batch_size, config.optimizer.accumulate_steps
    unit = math.lcm(devices, config.bn_group_size or 1)
    least = max(parts + 1, math.ceil(parts * (factor or 2)))
    fitting = [n for n in range(least, batch // unit + 1) if batch % (n * unit) == 0]
    text = f"lower batch_size ({batch})"
    if fitting:
        text += (
            f", or compute it in more parts: --config.optimizer.accumulate_steps={fitting[0]} "
            f"(now {parts})"
        )
    return text


def on_each_device(arrays: PyTree) -> int:
    """Bytes of a tree of arrays on each device that they are spread or copied to."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(arrays)
    )


@contextlib.contextmanager
def explained(config: ConfigDict, devices: int) -> Iterator[None]:
    """Says what to change where memory runs out after all.

    Raises:
      ConfigError: in place of the error of the compiler, the device or the allocator.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        text = str(error)
        if isinstance(error, jax.errors.JaxRuntimeError) and not (
            "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower()
        ):
            raise
        first = first_line(text)
        raise ConfigError(
            f"memory ran out ({first[:300] or type(error).__name__}). Where it was in training: "
            f"{smaller_step(config, devices)}; in evaluation: lower eval.batch_size."
        ) from error


# Time


def expected(seconds: float, left: float, epoch: float, epochs: int) -> str:
    """One line on how long a run takes.

    Args:
      seconds: of training so far.
      left: seconds still to come.
      epoch: seconds of one epoch.
      epochs: of the whole run.
    """
    return (
        f"An epoch takes about {duration(epoch)}, the whole run ({epochs} of them) about "
        f"{duration(seconds + left)}, evaluations left out."
    )

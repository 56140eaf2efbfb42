"""Table 4: what the coded network costs beside the plain one of the same shape (appendix B)."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from branchnets.counting import count_parameters, describe
from branchnets.families.base import Context, Phase
from branchnets.families.coded import slim
from branchnets.families.coded.analysis import parts
from branchnets.families.coded.analysis.paper import TABLE_4
from branchnets.families.study import Subject
from branchnets.latency import in_turn
from branchnets.report.content import Section, Table

if TYPE_CHECKING:
    from branchnets.families.coded.family import CodedFamily

#: Images of a timed step on processors without an accelerator.
CPU_BATCH = 32


@dataclasses.dataclass(frozen=True)
class Cost:
    """A measured row of Table 4.

    Attributes:
      macs: multiply-adds of one image, forward.
      parameters: trained scalars.
      throughput: images a second in training, forward and backward; None if not timed.
      memory: bytes of the compiled step, arguments and temporaries; None if not known.
    """

    macs: int
    parameters: int
    throughput: float | None
    memory: int | None


def section(family: CodedFamily, subject: Subject) -> Section:
    """Counts and times both networks."""
    steps = parts.number_option(subject, "timing_steps", 5, 0)
    batch = parts.number_option(subject, "timing_batch", 0, 0)
    if not batch:
        batch = min(CPU_BATCH, subject.batch_size) if parts.on_cpu() else subject.batch_size
    found = dict(zip(("plain", "coded"), measure(family, subject, steps, batch), strict=True))
    device = jax.devices()[0].device_kind
    return Section(
        "Costs",
        _text(found, steps, batch, device),
        (),
        (_table(found, steps, batch, device),),
        {name: dataclasses.asdict(cost) for name, cost in found.items()},
    )


def measure(family: CodedFamily, subject: Subject, steps: int, batch: int) -> tuple[Cost, Cost]:
    """Costs of the plain and of the coded network, timed in turn on one device."""
    # The ratio N/N everywhere needs no schemes, and what names them must not ask for any.
    plain = dataclasses.replace(
        family, model=slim.without_energies(family.model), schemes={}, block_gradients=False
    )
    families = {"plain": plain, "coded": family}
    compiled = {name: _compile(one, subject, batch) for name, one in families.items()}
    turns = subject.track(range(steps + 1) if steps else (), "timing training steps", steps + 1)
    seconds = in_turn({name: _runner(*found) for name, found in compiled.items()}, turns)
    costs = []
    for name, (program, arguments) in compiled.items():
        speed = batch / statistics.median(seconds[name]) if steps else None
        macs = describe(families[name].model, subject.image_shape).macs
        costs.append(Cost(macs, count_parameters(arguments[0]), speed, _memory(program)))
    return costs[0], costs[1]


def _runner(program: Any, arguments: tuple[Any, ...]) -> Callable[[], Any]:
    return lambda: jax.block_until_ready(program(*arguments))


def _compile(family: CodedFamily, subject: Subject, batch: int) -> tuple[Any, tuple[Any, ...]]:
    """(compiled gradient of the family's loss, its arguments), on one device."""
    if family.model.bn_group_size and batch % family.model.bn_group_size:
        family = dataclasses.replace(family, model=family.model.clone(bn_group_size=None))
    images = jnp.zeros((batch, *subject.image_shape), jnp.float32)
    labels = jnp.arange(batch) % family.model.num_classes
    variables = jax.jit(family.model.init)(jax.random.key(0), images)

    def loss(
        params: Any, rest: Any, images: jax.Array, labels: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Any]:
        context = Context(jnp.zeros((), jnp.int32), Phase("train", 1), key)
        given = {"image": images, "label": labels}
        terms, aux = family.loss({**rest, "params": params}, {}, given, context)
        return sum(terms.values(), jnp.zeros(())), aux.mutated

    rest = {name: value for name, value in variables.items() if name != "params"}
    arguments = (variables["params"], rest, images, labels, jax.random.key(1))
    program = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(*arguments).compile()
    return program, arguments


def _memory(program: Any) -> int | None:
    """Bytes of arguments and temporaries, where the backend tells."""
    found = program.memory_analysis()
    if found is None:
        return None
    return int(found.argument_size_in_bytes + found.temp_size_in_bytes)


def _text(found: dict[str, Cost], steps: int, batch: int, device: str) -> str:
    plain, coded = found["plain"], found["coded"]
    timing = "Throughput was not measured here (timing_steps=0)."
    if plain.throughput and coded.throughput:
        timing = (
            f"Here a training step (forward and backward, no optimiser, {batch} images, one "
            f"{device} device, median of {steps}) of the coded network takes "
            f"{plain.throughput / coded.throughput:.3f} times as long as the plain one's; the "
            f"paper measured {439 / 447:.3f} on a TPUv2, and more than 2 on a GPU."
        )
    return (
        "The plain network is the same module with the ratio N/N in every block: the same "
        "parameters, no energies. Energies come from second moments of the bottleneck and Gram "
        "matrices of the expansion, so the coded network needs "
        f"{100 * (coded.macs / plain.macs - 1):+.2f} % multiply-adds for an image (the paper: "
        f"{100 * (2.269 / 2.196 - 1):+.1f} %, counting three operations for each value of the "
        f"branches' outputs). {timing}"
    )


def _table(found: dict[str, Cost], steps: int, batch: int, device: str) -> Table:
    rows: list[tuple[Any, ...]] = [
        (f"{name}, here", c.macs / 1e9, c.parameters / 1e6, c.throughput,
         None if c.memory is None else c.memory / 1e9)
        for name, c in found.items()
    ]  # fmt: skip
    rows += [
        (f"{name}, paper (ResNeXt-50 on ImageNet, TPUv2)", c.gflops, c.parameters, c.throughput,
         c.memory)
        for name, c in TABLE_4.items()
    ]  # fmt: skip
    return Table(
        "table4_cost",
        f"Costs of training. Here: {batch} images a step on one {device} device, throughput from "
        f"the median of {steps} steps without optimiser, memory = arguments and temporaries of the "
        "compiled step. The paper's throughput and memory belong to its own hardware and batch of "
        "1024, and its GFLOPs count the normalisation as 3 N C H W.",
        ("network", "GMACs", "parameters (millions)", "images per second", "memory (GB)"),
        tuple(rows),
    )

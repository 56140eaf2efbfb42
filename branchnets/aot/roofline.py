"""How long a step takes at least, by what its chip is said to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from branchnets.aot.chips import Chip
from branchnets.aot.collectives import Collective


@dataclass(frozen=True)
class Roofline:
    """An estimate from peak rates; seconds. No step is faster than computing takes.

    The bytes are those that the program names, operands and results of each fusion: what stays on
    the chip between two of them is counted too, so that memory may take less. Most of all on v4,
    whose programs copy much to a memory on the chip, and the copies count as well.

    S. Williams, A. Waterman, D. Patterson, "Roofline", CACM 52(4), 2009, with the network added:
    time = max(FLOPs / peak, bytes / bandwidth) + network, as if nothing were sent while computing.

    Attributes:
      compute_seconds: FLOPs over the peak rate.
      memory_seconds: bytes moved over the memory's bandwidth.
      network_seconds: for the collectives, bandwidth alone.
      step_seconds: of the step.
      mfu: model FLOPs utilisation: the products of the network's layers, a multiplication and an
        addition counted as two, over what the chip could do in that time in bfloat16; None where
        the program has loops of unknown length.
    """

    compute_seconds: float
    memory_seconds: float
    network_seconds: float
    step_seconds: float
    mfu: float | None


def estimate(
    chip: Chip,
    devices: int,
    *,
    flops: float,
    bytes_accessed: float,
    model_flops: float,
    collectives: Iterable[Collective],
) -> Roofline:
    """The roofline of one device.

    Args:
      chip: its figures, divided over the devices that it counts as.
      devices: of the whole mesh.
      flops, bytes_accessed: of the compiled program, on one device.
      model_flops: of the network's layers, on one device.
      collectives: of the program, each as often as it happens.
    """
    compute = flops * chip.devices / chip.flops
    memory = bytes_accessed * chip.devices / chip.bandwidth
    sent = sum(one.times * sent_bytes(one, devices) for one in collectives)
    network = sent * chip.devices / chip.network
    seconds = max(compute, memory) + network
    peak = chip.flops / chip.devices
    mfu = model_flops / (seconds * peak) if seconds else 0.0
    return Roofline(compute, memory, network, seconds, mfu)


def sent_bytes(one: Collective, devices: int) -> float:
    """What a device sends at least, each time.

    Of n bytes put into an all-reduce over D devices, 2 n (D - 1) / D. Every other device needs what
    it gathers, n (D - 1); of what it scatters, a D-th stays. R. Thakur, R. Rabenseifner, W. Gropp,
    "Optimization of collective communication operations in MPICH", 2005.
    """
    share = (devices - 1) / devices
    if one.kind == "all-reduce":
        return 2 * one.operand_bytes * share
    if one.kind == "all-gather":
        return one.operand_bytes * (devices - 1)
    if one.kind in ("reduce-scatter", "all-to-all", "ragged-all-to-all"):
        return one.operand_bytes * share
    return one.operand_bytes

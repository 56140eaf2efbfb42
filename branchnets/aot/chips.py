"""Published figures of TPU chips, each with its source."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Chip:
    """What one chip is said to do.

    Attributes:
      name: of its generation, as topologies are named.
      flops: peak bfloat16 operations a second.
      hbm_bytes: memory.
      usable_bytes: what its compiler gives a program of a device's memory: libtpu 0.0.52 says so
        when it refuses one. Less than is published, except on v5p.
      bandwidth: of that memory, bytes a second.
      network: bytes a second that it sends to its neighbours, over all links in one direction.
      devices: that JAX sees of it: TensorCores, or one where both cores work as one.
      source: of the figures.
    """

    name: str
    flops: float
    hbm_bytes: int
    usable_bytes: int
    bandwidth: float
    network: float
    devices: int
    source: str


_PAPER = (
    "N. Jouppi et al., A Domain-Specific Supercomputer for Training Deep Neural Networks, CACM "
    "63(7), 2020, doi:10.1145/3360307"
)
_DOCS = "https://docs.cloud.google.com/tpu/docs/"
_GIB = 2**30


def _gib(number: float) -> int:
    return int(number * _GIB)


# The pages count a link's both directions; `network` is half of that. The paper counts one.
CHIPS: dict[str, Chip] = {
    chip.name: chip
    for chip in (
        Chip("v2", 46e12, 16 * _GIB, _gib(7.48), 700e9, 4 * 496e9 / 8, 2, _PAPER),
        Chip(
            *("v3", 123e12, 32 * _GIB, _gib(15.48), 900e9, 4 * 656e9 / 8, 2),
            f"{_DOCS}v3; links: {_PAPER}",
        ),
        Chip(
            *("v4", 275e12, 32 * _GIB, _gib(30.75), 1200e9, 6 * 50e9, 1),
            f"{_DOCS}v4; links: N. Jouppi et al., TPU v4: An Optically Reconfigurable "
            "Supercomputer for Machine Learning, ISCA 2023, doi:10.1145/3579371.3589350",
        ),
        Chip("v5e", 197e12, 16 * _GIB, _gib(15.75), 819e9, 400e9 / 2, 1, f"{_DOCS}v5e"),
        Chip("v5p", 459e12, 95 * _GIB, _gib(95.73), 2765e9, 1200e9 / 2, 1, f"{_DOCS}v5p"),
        Chip("v6e", 918e12, 32 * _GIB, _gib(31.24), 1638e9, 800e9 / 2, 1, f"{_DOCS}v6e"),
    )
}

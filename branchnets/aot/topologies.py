"""Named TPU topologies: devices that a program can be compiled for, though none of them is here."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from typing import Any

from branchnets.aot import accelerators
from branchnets.aot.chips import CHIPS, Chip
from branchnets.errors import ConfigError, UserError, first_line

#: Generation -> number of devices -> the topology that has them.
SWEEPS: dict[str, dict[int, str]] = {
    "v3": {8: "v3:2x2", 64: "v3:4x8", 256: "v3:8x16", 1024: "v3:16x32"},
    "v4": {8: "v4:2x2x2", 64: "v4:4x4x4", 256: "v4:4x8x8", 1024: "v4:8x8x16"},
}

# Both cores of a v4 chip work as one device where Cloud TPU's VMs start it; libtpu's own default
# here is one device a core. The later generations have it right by themselves.
_OPTIONS: dict[str, dict[str, Any]] = {"v4": {"chip_config_name": "megacore"}}


@dataclass(frozen=True)
class Topology:
    """Devices of one slice.

    Attributes:
      name: "v5e:16x16".
      chip: what they are made of.
      devices: to compile for, in the order of a mesh.
    """

    name: str
    chip: Chip
    devices: tuple[Any, ...]

    @property
    def hbm_bytes(self) -> int:
        """Memory of a device."""
        return self.chip.hbm_bytes // self.chip.devices

    @property
    def usable_bytes(self) -> int:
        """What of it a program may have."""
        return self.chip.usable_bytes


def prepare_environment() -> None:
    """Keeps JAX from other devices than the processor; before it starts them."""
    import jax

    # JAX has read the variable when it was imported, which the command lines do.
    jax.config.update("jax_platforms", "cpu")
    os.environ["JAX_PLATFORMS"] = "cpu"
    # libtpu ends the process at a flag for another platform that it does not know.
    flags = os.environ.get("XLA_FLAGS", "").split()
    others = ("--xla_cpu_", "--xla_gpu_")
    os.environ["XLA_FLAGS"] = " ".join(flag for flag in flags if not flag.startswith(others))
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # libtpu else asks a cloud what it runs on
    # Two compilations at once would else be one too many for libtpu.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    # Or it complains that no cloud has told it where it runs.
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v2-8")
    os.environ.setdefault("TPU_STDERR_LOG_LEVEL", "3")
    os.environ.setdefault("TPU_MIN_LOG_LEVEL", "3")


def parse(name: str) -> Chip:
    """The chip of a topology's name, or of an accelerator type.

    Raises:
      ConfigError: as :func:`branchnets.aot.accelerators.topology_name`.
    """
    return CHIPS[accelerators.topology_name(name).partition(":")[0]]


def find(name: str) -> Topology:
    """The topology of that name, or of that accelerator type.

    Raises:
      ConfigError: there is no such topology.
      UserError: libtpu is not installed, or makes other devices of it than the chip has.
    """
    name = accelerators.topology_name(name)
    generation, _, mesh = name.partition(":")
    chip, size = CHIPS[generation], accelerators.chips(mesh)
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            "compiling for a TPU needs its compiler, libtpu, which is not installed: "
            'pip install "branchnets[tpu]", or pip install libtpu.'
        )
    import jax
    from jax.experimental import topologies

    try:
        found = topologies.get_topology_desc(
            platform="tpu", topology_name=name, **_OPTIONS.get(chip.name, {})
        )
    except (jax.errors.JaxRuntimeError, ValueError, NotImplementedError) as error:
        raise ConfigError(
            f"topology {name!r}: libtpu does not have it ({first_line(error)[:200]}). "
            f"The nearest that Cloud TPU has: {accelerators.nearest(generation, size)}."
        ) from error
    topology = Topology(name, chip, tuple(found.devices))
    if len(topology.devices) != (expected := chip.devices * size):
        raise UserError(
            f"topology {name!r}: this libtpu makes {len(topology.devices)} devices of it where "
            f"{expected} were expected, so that figures of a device would be wrong."
        )
    return topology

"""What the compiler is told beside the program: which library multiplies matrices on CPU."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, SingleDeviceSharding

# XLA for CPU has two libraries for products and convolutions, YNNPACK and Eigen, and takes the
# first. Eigen is faster on the long, narrow products of these networks when two threads share them,
# YNNPACK in sums over images. Of the processor time of plain ResNeXt-29 on two cores 0.80 to 0.90
# was left; small networks and one core gained nothing (`results/conv_lowerings.md`, without a log).
_CPU = MappingProxyType({"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"})


def options(mesh: Mesh) -> dict[str, str] | None:
    """Compiler options for the devices of a mesh: the argument `compiler_options` of `jax.jit`.

    None where there is nothing to say: other platforms, and a jaxlib that does not know the option.
    """
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return dict(_CPU) if on_cpu and _known() else None


@functools.cache
def _known() -> bool:
    return known(_CPU)


def known(chosen: Mapping[str, str]) -> bool:
    """Whether this jaxlib takes options for CPU: experimental ones may go or be renamed."""
    where = SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    nothing = jax.ShapeDtypeStruct((), jnp.float32, sharding=where)
    try:
        jax.jit(lambda x: x, compiler_options=dict(chosen)).lower(nothing).compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True

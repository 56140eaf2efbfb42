"""Published peak rates of devices, for the fraction of peak that a step reaches."""

from __future__ import annotations

from branchnets.aot.chips import CHIPS

_NVIDIA = "nvidia.com/en-us/data-center/"
#: JAX's device_kind -> dense bfloat16 operations a second, without sparsity, and source.
GPUS: dict[str, tuple[float, str]] = {
    "NVIDIA H200": (989e12, f"{_NVIDIA}h200, SXM"),
    "NVIDIA H100 80GB HBM3": (989e12, f"{_NVIDIA}h100, SXM"),
    "NVIDIA A100-SXM4-40GB": (312e12, f"{_NVIDIA}a100"),
    "NVIDIA A100-SXM4-80GB": (312e12, f"{_NVIDIA}a100"),
    "NVIDIA A100-PCIE-40GB": (312e12, f"{_NVIDIA}a100"),
    "NVIDIA A100 80GB PCIe": (312e12, f"{_NVIDIA}a100"),
    "NVIDIA L4": (121e12, f"{_NVIDIA}l4"),
}
#: JAX's device_kind -> the chip whose figures are in branchnets/aot/chips.py.
TPUS = {
    "TPU v2": "v2",
    "TPU v3": "v3",
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
}


def peak(device_kind: str, dtype: str) -> float | None:
    """Operations a second of a device; None where it is not known, as for any CPU.

    In float32 there is no one rate to compare with: what matrix units do then depends on settings.
    """
    if dtype != "bfloat16":
        return None
    if (name := TPUS.get(device_kind)) is not None:
        return CHIPS[name].flops / CHIPS[name].devices
    return GPUS[device_kind][0] if device_kind in GPUS else None


def source(device_kind: str) -> str:
    """Where the peak of a device that has one is published."""
    return CHIPS[TPUS[device_kind]].source if device_kind in TPUS else GPUS[device_kind][1]

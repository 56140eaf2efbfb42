"""Published peak rates of devices, for the fraction of peak that a step reaches."""

from __future__ import annotations

#: Part of JAX's device_kind -> dense bfloat16 operations a second of one JAX device, and source.
PEAKS: dict[str, tuple[float, str]] = {
    "H200": (989e12, "nvidia.com/en-us/data-center/h200, SXM, without sparsity"),
    "H100": (989e12, "nvidia.com/en-us/data-center/h100, SXM, without sparsity"),
    "A100": (312e12, "nvidia.com/en-us/data-center/a100, without sparsity"),
    "L4": (121e12, "nvidia.com/en-us/data-center/l4, without sparsity"),
    "TPU v2": (23e12, "half a chip of 46 TFLOP/s: Jouppi et al., doi:10.1145/3360307"),
    "TPU v3": (61.5e12, "half a chip of 123 TFLOP/s: docs.cloud.google.com/tpu/docs/v3"),
    "TPU v4": (275e12, "docs.cloud.google.com/tpu/docs/v4"),
    "TPU v5 lite": (197e12, "docs.cloud.google.com/tpu/docs/v5e"),
    "TPU v5p": (459e12, "docs.cloud.google.com/tpu/docs/v5p"),
    "TPU v6 lite": (918e12, "docs.cloud.google.com/tpu/docs/v6e"),
}


def peak(device_kind: str, dtype: str) -> float | None:
    """Operations a second of a device; None where it is not known, as for any CPU.

    In float32 there is no one rate to compare with: what matrix units do then depends on settings.
    """
    if dtype != "bfloat16":
        return None
    return next((rate for name, (rate, _) in PEAKS.items() if name in device_kind), None)

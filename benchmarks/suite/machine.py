"""What figures of speed are figures of: the machine, and what on it changes them."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import timing

#: Of the checkout, where the suite's processes run.
ROOT = Path(__file__).resolve().parents[2]
#: Fields by which machines differ; by the others one machine differs from itself.
PLACE = ("device", "devices", "cores")
#: Environment variables that make the same code faster or slower.
_VARIABLES = ("GLIBC_TUNABLES", "XLA_FLAGS")
_TORCH = "import torch; print(torch.__version__)"


def describe() -> dict[str, Any]:
    """This machine, and the versions that our side is measured with.

    JAX is asked in a process of its own: whoever has asked for a TPU keeps it from others.

    Raises:
      RuntimeError: JAX does not start.
    """
    found: dict[str, Any] = json.loads(_said([sys.executable, "-m", "benchmarks.suite.machine"]))
    return found


def text(found: dict[str, Any]) -> str:
    """The machine, for people.

    >>> text({"device": "NVIDIA H200", "devices": 2, "cores": 16, "jax": "0.11"})
    '2 x NVIDIA H200, 16 cores'
    """
    several = f"{found['devices']} x " if found["devices"] > 1 else ""
    return f"{several}{found['device']}, {found['cores']} cores"


def versions(found: dict[str, Any]) -> str:
    """What else a machine's figures depend on."""
    return ", ".join(f"{name} {value}" for name, value in found.items() if name not in PLACE)


def torch_version(python: str) -> str:
    """PyTorch's version in another environment.

    Raises:
      RuntimeError: it has none.
    """
    try:
        return _said([python, "-c", _TORCH]).strip()
    except RuntimeError as error:
        raise RuntimeError(f"no PyTorch in {python}: {error}") from error


def _said(command: list[str]) -> str:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError as error:
        raise RuntimeError(str(error)) from error
    if done.returncode:
        raise RuntimeError(timing.why_ended(done.returncode, done.stderr))
    return done.stdout


def _here() -> dict[str, Any]:
    import jax
    import jaxlib

    devices = jax.devices()
    on_cpu = devices[0].platform == "cpu"
    return {
        "device": _processor() if on_cpu else devices[0].device_kind,
        "devices": len(devices),
        "cores": timing.cores(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        **{name: kept for name in _VARIABLES if (kept := _placeless(os.environ.get(name, "")))},
    }


def _placeless(text: str) -> str:
    """A variable's words without those that name a file or a folder of this machine.

    >>> _placeless("--xla_a=1 --xla_dump_to=/home/me")
    '--xla_a=1'
    """
    return " ".join(word for word in text.split() if "/" not in word)


def _processor(file: Path = Path("/proc/cpuinfo")) -> str:
    """The name of the processor: JAX calls them all "cpu"."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


if __name__ == "__main__":
    print(json.dumps(_here()))

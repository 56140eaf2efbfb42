"""How much memory there is: on the devices, and on the host for this process."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jax.sharding import Mesh


@dataclasses.dataclass(frozen=True)
class Memory:
    """What can still be taken, in bytes; None where it is not known.

    Attributes:
      device: on the device that has least; None on CPU, whose devices take the host's.
      host: of the host, by this process.
      devices: devices of this process.
      shared: whether the devices take their memory from the host's.
    """

    device: int | None
    host: int | None
    devices: int
    shared: bool


def free(mesh: Mesh) -> Memory:
    """What is free now, for the devices of a mesh that belong to this process."""
    devices = mesh.local_devices
    shared = all(device.platform == "cpu" for device in devices)
    found = [] if shared else [_free_on(device) for device in devices]
    known = [size for size in found if size is not None]
    return Memory(min(known, default=None), host_free(), len(devices), shared)


def beside_arguments(program: Any) -> int:
    """Bytes on each device that a compiled program takes besides its arguments.

    Temporaries, its code, and the outputs that do not take the place of arguments.

    Args:
      program: what `memory_analysis()` of the compiled one says.
    """
    outputs = max(program.output_size_in_bytes - program.alias_size_in_bytes, 0)
    return int(program.temp_size_in_bytes + program.generated_code_size_in_bytes + outputs)


def _free_on(device: Any) -> int | None:
    stats = device.memory_stats() or {}
    limit = stats.get("bytes_limit")
    return None if limit is None else limit - stats.get("bytes_in_use", 0)


def host_free(root: Path = Path("/")) -> int | None:
    """Bytes of host memory that this process can still take.

    That is what the system has left, swap space included, or what the control groups of the
    process (a container's, or those of a batch system) leave of their limits of memory, swap space
    left out, whichever is less. Files kept in memory count as free: the system gives them up.

    Args:
      root: where `proc` and `sys` are.
    """
    system = _meminfo(root)
    if system is None:
        return _physical()
    return min([system, *_control_groups(root)])


def shared_free(root: Path = Path("/")) -> int | None:
    """Bytes that are left for shared memory between processes; None where it is not known.

    Args:
      root: where `dev` is.
    """
    try:
        found = os.statvfs(root / "dev/shm")
        return found.f_bavail * found.f_frsize
    except (OSError, AttributeError):
        return None


def _meminfo(root: Path) -> int | None:
    try:
        text = (root / "proc/meminfo").read_text()
        fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        names = ("MemAvailable", "SwapFree")
        return sum(1024 * int(fields[name].split()[0]) for name in names)
    except (OSError, ValueError, LookupError):
        return None


def _physical() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError, AttributeError):
        return None


# Of the two versions of control groups: where the limits lie, what the files are called, and what
# of the usage the kernel gives up when a limit is near. Files read twice are "active"; what lies in
# shared memory is among neither.
_V2 = (
    "sys/fs/cgroup",
    "memory.max",
    "memory.current",
    ("inactive_file", "active_file", "slab_reclaimable"),
)
_V1 = (
    "sys/fs/cgroup/memory",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_inactive_file", "total_active_file"),
)


def _control_groups(root: Path) -> list[int]:
    """What each group that the process is in leaves of its limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers and "memory" not in controllers.split(","):
            continue
        mount, limit, usage, given_up = _V1 if controllers else _V2
        folder = root / mount
        # Inside a container the path is the host's, and only the mounted folder itself is there.
        groups = [folder, *(folder / p for p in _ancestors(path))]
        found += [
            left for group in groups if (left := _left(group, limit, usage, given_up)) is not None
        ]
    return found


def _ancestors(path: str) -> list[str]:
    parts = path.strip("/").split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts) + 1) if parts[0]]


def _left(group: Path, limit: str, usage: str, given_up: Iterable[str]) -> int | None:
    try:
        most, used = int((group / limit).read_text()), int((group / usage).read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return max(most - used + sum(int(stat.get(name, 0)) for name in given_up), 0)
    except (OSError, ValueError):  # no such group, or "max": no limit
        return None

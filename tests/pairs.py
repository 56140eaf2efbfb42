"""Two real processes on this machine that stand for two hosts."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

ROOT = pathlib.Path(__file__).parents[1]
TIMEOUT = 240


@dataclasses.dataclass(frozen=True)
class Ended:
    """One of them when it has ended; `seconds` since both were started."""

    status: int
    out: str
    err: str
    seconds: float


def run(
    source: str, *arguments: object, devices: int = 1, statuses: Sequence[int] = (0, 0)
) -> list[tuple[str, str]]:
    """Runs a program as both processes of a JAX cluster; returns what they wrote.

    Args:
      source: reads its process number and the coordinator's port from argv[1:3], and the arguments
        after them.
      *arguments: of the program.
      devices: of each process.
      statuses: that they must end with.
    """
    port = free_port()
    command = [sys.executable, "-c", source]
    words = [[*command, str(process), port, *map(str, arguments)] for process in range(2)]
    ended = end(words, devices)
    assert [one.status for one in ended] == list(statuses), ended
    return [(one.out, one.err) for one in ended]


def train(*words: object, devices: int = 1, **changes: Mapping[int, str]) -> list[Ended]:
    """Runs the command line as both processes of a run.

    Args:
      *words: of the command line.
      devices: of each process.
      **changes: as of `end`.
    """
    command = [sys.executable, "-m", "branchnets.main", *map(str, words)]
    place = [f"--coordinator_address=127.0.0.1:{free_port()}", "--num_processes=2"]
    return end(
        [[*command, *place, f"--process_id={process}"] for process in range(2)], devices, **changes
    )


def end(
    commands: Sequence[Sequence[str]],
    devices: int = 1,
    *,
    folders: Sequence[pathlib.Path] = (ROOT, ROOT),
) -> list[Ended]:
    """Runs commands side by side until all have ended; none outlives this.

    Args:
      commands: with their arguments.
      devices: of each process.
      folders: to run them in.
    """
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": ":".join([str(ROOT), *filter(None, sys.path)]),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} "
        "--xla_backend_optimization_level=0",
    }
    started, ended = time.monotonic(), []
    workers = [
        subprocess.Popen(
            command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for command, folder in zip(commands, folders, strict=False)
    ]  # fmt: skip
    try:
        for worker in workers:
            out, err = worker.communicate(timeout=TIMEOUT)
            ended.append(Ended(worker.returncode, out, err, time.monotonic() - started))
    finally:
        for worker in workers:
            worker.kill()
    return ended


def free_port() -> str:
    """A port of this machine that nothing uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])

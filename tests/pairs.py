"""Two real processes on this machine that stand for two hosts."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import IO

ROOT = pathlib.Path(__file__).parents[1]
TIMEOUT = 400


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


def train(
    *words: object, devices: int = 1, folders: Sequence[pathlib.Path] = (ROOT, ROOT)
) -> list[Ended]:
    """Runs the command line as both processes of a run.

    Args:
      *words: of the command line.
      devices: of each process.
      folders: to run them in.
    """
    command = [sys.executable, "-m", "branchnets.main", *map(str, words)]
    place = [f"--coordinator_address=127.0.0.1:{free_port()}", "--num_processes=2"]
    commands = [[*command, *place, f"--process_id={process}"] for process in range(2)]
    return end(commands, devices, folders=folders)


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
        # Compiled as the tests' own networks are.
        "XLA_FLAGS": re.sub(r"(device_count=)\d+", rf"\g<1>{devices}", os.environ["XLA_FLAGS"]),
    }
    started, workers, written = time.monotonic(), [], []
    with contextlib.ExitStack() as stack:
        for command, folder in zip(commands, folders, strict=False):
            # Files: one process would wait for ever on a pipe that is full, while another is read.
            out, err = (stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2))
            worker = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=err)
            stack.callback(_end, worker)
            workers.append(worker)
            written.append((out, err))
        seconds = []
        for worker in workers:
            try:
                worker.wait(max(started + TIMEOUT - time.monotonic(), 0))
            except subprocess.TimeoutExpired as error:
                said = "\n".join(f"process {i}:\n{_read(e)}" for i, (_, e) in enumerate(written))
                raise AssertionError(f"still running after {TIMEOUT} s; {said}") from error
            seconds.append(time.monotonic() - started)
        return [
            Ended(worker.returncode, _read(out), _read(err), taken)
            for worker, (out, err), taken in zip(workers, written, seconds, strict=True)
        ]


def _end(worker: subprocess.Popen[bytes]) -> None:
    worker.kill()
    worker.wait()


def _read(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


def free_port() -> str:
    """A port of this machine that nothing uses.

    Not one that the system itself would give to whoever connects next (32768 and up on Linux).
    """
    while True:
        port = random.SystemRandom().randrange(20000, 32768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return str(port)

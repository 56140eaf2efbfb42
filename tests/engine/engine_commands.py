"""Runs of the command line in processes of their own, for tests that kill them."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

from pairs import free_port
from run_states import assert_same_bits, final_state

from branchnets.engine.records.logging import read_metrics

ROOT = pathlib.Path(__file__).parents[2]
SAVE_EVERY = 20
#: Whether every fault is tried as often as results/ tell, as benchmarks.faults has it.
ALL = bool(os.environ.get("BRANCHNETS_TEST_ALL_FAULTS"))
TIMEOUT = 1800 if ALL else 300  # seconds; the runs are longer then


class Command:
    """A small coded network on 512 made-up images, eight a step; it saves every twenty steps.

    Args:
      workdir: the run directory.
      epochs: of 64 steps.
      mode: "train" or "eval".
      flags: more of them.
    """

    def __init__(self, workdir, epochs, mode="train", flags=()):
        self.workdir = workdir
        command = [
            sys.executable, "-m", "branchnets.main", "--config=configs/coded_digits.py:smoke",
            "--config.data.fake_size=512", f"--config.epochs={epochs}",
            "--config.log.every_steps=1", "--config.eval.every_epochs=0",
            f"--config.checkpoint.every_steps={SAVE_EVERY}", f"--workdir={workdir}", *flags,
        ]  # fmt: skip
        if mode == "eval":
            command[3:] = ["--mode=eval", f"--workdir={workdir}"]
        # One device, as the whole run has; as many would each have a thread pool of their own.
        environment = {**os.environ, "XLA_FLAGS": "--xla_backend_optimization_level=0"}
        environment["PYTHONPATH"] = str(ROOT)
        self._started = time.time()
        # Not beside the run, whose disk may be full.
        self._error = tempfile.NamedTemporaryFile("w+")
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=self._error
        )

    @property
    def error(self):
        """What it wrote on stderr so far."""
        return pathlib.Path(self._error.name).read_text()

    @property
    def checkpoints(self):
        return self.workdir / "checkpoints"

    def steps(self):
        """Steps done, as its metrics tell."""
        file = self.workdir / "metrics.jsonl"
        lines = read_metrics(file) if file.exists() else []
        return max((line["step"] for line in lines if line["split"] == "train"), default=0)

    def resumed(self):
        """Waits for training to begin; returns the step that it goes on from."""
        self.until(lambda: ": steps " in self.error)
        assert ": steps " in self.error, self.error
        found = re.search(r"Resuming .* at step (\d+)", self.error)
        return int(found[1]) if found else 0

    def saving(self):
        """Whether a save of this process is on its way: what earlier ones left does not count."""
        with contextlib.suppress(FileNotFoundError):  # the folder of checkpoints, or a save's
            for entry in os.scandir(self.checkpoints):
                if "tmp" in entry.name and entry.stat().st_mtime > self._started:
                    return True
        return False

    def whole(self):
        """The complete steps, ascending."""
        if not self.checkpoints.is_dir():
            return []
        return sorted(int(name) for name in os.listdir(self.checkpoints) if name.isdecimal())

    def until(self, condition, pause=0.002):
        """Waits for a condition, or the end of the process; returns whether it still runs."""
        deadline = time.monotonic() + TIMEOUT
        while self.process.poll() is None:
            if condition():
                return True
            assert time.monotonic() < deadline, self.error
            time.sleep(pause)
        return False

    def end(self):
        """Waits for the end; returns the exit status."""
        return self.process.wait(TIMEOUT)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Pair:
    """Two processes of one run, each with one device and half of every batch.

    Args:
      workdir: the run directory.
      epochs: of 32 steps, or as the flags say.
      flags: of both.
    """

    SAVE_EVERY = 4

    def __init__(self, workdir, epochs, flags=()):
        port = free_port()
        self.both = [
            Command(workdir, epochs, flags=[
                f"--coordinator_address=127.0.0.1:{port}", "--num_processes=2",
                f"--process_id={process}",
                # Fewer and larger steps, with no statistics to agree on inside them.
                "--config.batch_size=16", "--config.bn_group_size=8",
                f"--config.checkpoint.every_steps={self.SAVE_EVERY}", *flags,
            ]) for process in range(2)
        ]  # fmt: skip
        self.first = self.both[0]

    @property
    def error(self):
        """What both wrote on stderr so far."""
        return "\n".join(f"process {i}:\n{command.error}" for i, command in enumerate(self.both))

    def kill(self):
        """Ends both, however they are."""
        for command in self.both:
            command.kill()

    def ends(self):
        """Waits for both ends; returns their exit statuses."""
        return [command.end() for command in self.both]


def assert_same_run(one, other):
    """Two runs ended with the same bits, and their metrics tell the same of every step."""
    assert_same_bits(final_state(one), final_state(other))
    assert history(one) == history(other)


def history(workdir):
    """(split, step) -> metrics, those left out that are of time."""
    times = {"time", "seconds", "examples_per_second"}
    return {
        (line["split"], line["step"]): {k: v for k, v in line.items() if k not in times}
        for line in read_metrics(workdir / "metrics.jsonl")
    }

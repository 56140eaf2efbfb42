"""A cloud of folders: stand-ins on PATH for gcloud and for the Python of a TPU VM."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]


@dataclasses.dataclass
class Cloud:
    """Runs launch scripts where no real command of a cloud is reached."""

    folder: pathlib.Path
    environment: dict[str, str]

    def scenario(self, **fields: object) -> None:
        (self.folder / "scenario.json").write_text(json.dumps(fields))

    def run(
        self, script: str, *arguments: str, timeout: int = 60, **more
    ) -> subprocess.CompletedProcess:
        common = ["--name=pod", "--zone=z", "--interval=0.02"]
        return subprocess.run(
            ["bash", str(ROOT / "launch/tpu" / f"{script}.sh"), *common, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            **more,
        )

    def ok(self, script: str, *arguments: str, **more) -> str:
        done = self.run(script, *arguments, **more)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def calls(self, *words: str) -> list[list[str]]:
        """The arguments of the calls of gcloud that have these words."""
        file = self.folder / "calls.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        calls = [json.loads(line)[2:] for line in lines]  # without "compute tpus"
        return [call for call in calls if all(word in call for word in words)]

    def read(self, name: str) -> str | None:
        file = self.folder / name
        return file.read_text() if file.exists() else None

    def plan(self, *plans: str) -> None:
        """What the trainer does on worker 0, 1 ...: words for its first, second ... start."""
        for worker, plan in enumerate(plans):
            (self.folder / f"plan-{worker}").write_text(plan.replace(" ", "\n") + "\n")

    def devices(self, workers: int, each: int, platform: str = "tpu") -> None:
        lines = [
            f"branchnets-devices process={w}/{workers} platform={platform} local={each}"
            f" all={workers * each}\n"
            for w in range(workers)
        ]
        (self.folder / "devices").write_text("".join(lines))

    def up(self, workers: int, *options: str, **scenario: object) -> None:
        """Makes a slice of v3 cores and sets it up, from a tiny archive."""
        self.scenario(workers=workers, type=f"v3-{8 * workers}", **scenario)
        self.devices(workers, 8)
        source = self.folder / "source"
        (source / "configs").mkdir(parents=True)
        (source / "setup.py").write_text("# the package")
        archive = self.folder / "source.tar.gz"
        subprocess.run(["tar", "-C", str(source), "-czf", str(archive), "."], check=True)
        self.ok("create", f"--accelerator-type=v3-{8 * workers}", *options)
        self.ok("setup", f"--archive={archive}")

    def start(self, *arguments: str) -> str:
        return self.ok("run", "--workdir=gs://b/run", "--config=configs/a.py:smoke", *arguments)

    def started(self) -> list[str]:
        return (self.read("started") or "").splitlines()

    def close(self) -> None:
        """Ends trainers that are left, told by their environment: a file may hold any number."""
        mark = f"STANDIN={self.folder}".encode()
        for file in self.folder.glob("*/branchnets/run/process"):
            number = int(file.read_text().split()[1])
            try:
                environment = pathlib.Path(f"/proc/{number}/environ").read_bytes().split(b"\0")
                # Only a group of its own: group 1 or 0 would be every process, or pytest itself.
                if number > 1 and mark in environment and os.getpgid(number) == number:
                    os.killpg(number, signal.SIGKILL)
            except (FileNotFoundError, ProcessLookupError):
                pass


@pytest.fixture
def cloud(tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    _script(tools / "gcloud", f'exec {sys.executable} -S "{HERE}/gcloud" "$@"')
    _script(tools / "curl", 'printf "%s" "$WORKER"')
    (tools / "python3.11").symlink_to(HERE / "vm_python")
    environment = {
        "PATH": f"{tools}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "STANDIN": str(tmp_path),
        "BRANCHNETS_LAUNCH_STATE": str(tmp_path / "state"),
        # No command here may reach an account, should the stand-in ever not be found.
        "CLOUDSDK_CONFIG": str(tmp_path / "no-account"),
    }
    made = Cloud(tmp_path, environment)
    made.scenario()
    yield made
    made.close()


def _script(file: pathlib.Path, line: str) -> None:
    file.write_text(f"#!/bin/sh\n{line}\n")
    file.chmod(0o755)

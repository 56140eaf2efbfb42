"""A cloud of folders: stand-ins on PATH for gcloud and for the Python of a TPU VM."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import pathlib
import shutil
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
    templates: dict[str, pathlib.Path]

    def scenario(self, **fields: object) -> None:
        (self.folder / "scenario").write_text(repr(fields))

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

    def ok(self, script: str, *arguments: str, fails: int = 0, **more) -> str:
        """What a script that ends as it should (with ``fails``) says."""
        done = self.run(script, *arguments, **more)
        assert done.returncode == fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    def calls(self, *words: str) -> list[list[str]]:
        """The arguments of the calls of gcloud that have these words."""
        lines = (self.read("calls") or "").splitlines()
        given = [ast.literal_eval(line) for line in lines]
        calls = [call[call.index("tpus") + 1 :] for call in given if "tpus" in call]
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
        """Makes a slice of v3 cores and sets it up, from a tiny archive.

        The scripts do it once; the next test that asks for the same gets a copy of the folders.
        """
        key = json.dumps([workers, options, scenario])
        if key in self.templates:
            _copy(self.templates[key], self.folder)
            return
        self._up(workers, *options, **scenario)
        self.templates[key] = self.templates["folder"] / str(len(self.templates))
        _copy(self.folder, self.templates[key])

    def _up(self, workers: int, *options: str, **scenario: object) -> None:
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
        config = "--config=configs/coded_digits.py:smoke"
        return self.ok("run", "--workdir=gs://b/run", config, *arguments)

    def on_vm(self, worker: int, *arguments: str) -> subprocess.CompletedProcess:
        """Runs a script on a worker, without gcloud."""
        home = self.folder / f"vm{worker}"
        return subprocess.run(
            ["bash", *arguments],
            cwd=home,
            env={**self.environment, "HOME": str(home), "WORKER": str(worker)},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def started(self) -> list[str]:
        return (self.read("started") or "").splitlines()

    def close(self) -> None:
        """Ends trainers that are left, told by their environment: a file may hold any number."""
        for file in self.folder.glob("*/branchnets-vm/run/process"):
            words = file.read_text().split()
            for number in (*words[1:2], *words[4:5]):  # the supervisor, then the trainer
                self.kill(int(number))

    def kill(self, number: int) -> None:
        """Kills one process, which is sure to have been started here; never a group."""
        mark = f"STANDIN={self.folder}".encode()
        try:
            environment = pathlib.Path(f"/proc/{number}/environ").read_bytes().split(b"\0")
            if number > 1 and mark in environment:
                os.kill(number, signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            pass


@pytest.fixture(scope="session")
def templates(tmp_path_factory):
    return {"folder": tmp_path_factory.mktemp("templates")}


@pytest.fixture
def cloud(tmp_path, templates):
    tools = tmp_path / "bin"
    tools.mkdir()
    _script(tools / "gcloud", f'exec {sys.executable} -I -S "{HERE}/gcloud" "$@"')
    _script(tools / "curl", 'printf "%s" "$WORKER"')
    (tools / "python3.11").symlink_to(HERE / "vm_python")
    environment = {
        "PATH": f"{tools}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "STANDIN": str(tmp_path),
        "PROJECT_ID": "p",
        "BRANCHNETS_LAUNCH_STATE": str(tmp_path / "state"),
        # No command here may reach an account, should the stand-in ever not be found.
        "CLOUDSDK_CONFIG": str(tmp_path / "no-account"),
    }
    made = Cloud(tmp_path, environment, templates)
    made.scenario()
    yield made
    made.close()


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies all but the stand-ins; the one path that is remembered becomes the target's."""

    def without_tools(folder: str, names: list[str]) -> list[str]:
        return ["bin"] if folder == str(source) else []

    shutil.copytree(source, target, symlinks=True, ignore=without_tools, dirs_exist_ok=True)
    remembered = target / "state/p/z/pod/setup"
    remembered.write_text(remembered.read_text().replace(str(source), str(target)))


def _script(file: pathlib.Path, line: str) -> None:
    file.write_text(f"#!/bin/sh\n{line}\n")
    file.chmod(0o755)

"""What every launch script keeps to: help, dry runs without a trace, strict bash."""

import json
import pathlib
import shlex
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "launch").rglob("*.sh")) + sorted((ROOT / "launch").rglob("*.sbatch"))
SOURCED = {"common.sh", "environment.sh", "shell.sh"}
#: One command of each, that a --dry-run shows.
DRY = {
    "create": ["--accelerator-type=v3-32", "--spot", "--queued"],
    "setup": [],
    "run": ["--workdir=gs://b/r", "--config=configs/coded_digits.py:smoke,k=4", "--config.a='$A"],
    "watch": [],
    "logs": ["--worker=all", "--follow"],
    "delete": [],
}


@pytest.mark.parametrize(
    "script", [path for path in SCRIPTS if path.name not in SOURCED], ids=lambda path: path.name
)
def test_scripts_are_strict_and_explain_themselves(script):
    assert "\nset -euo pipefail\n" in script.read_text()
    done = subprocess.run(["bash", str(script), "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("usage: "), done.stderr
    assert not done.stderr


def test_what_is_sourced_runs_nothing():
    """It is there, and says no word: no part of a script that would run by itself."""
    for name in SOURCED:
        (path,) = (path for path in SCRIPTS if path.name == name)
        command = ["bash", "-c", f"set -euo pipefail; ROOT={ROOT}; source {path}; die over"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: over\n")
        alone = subprocess.run(["bash", str(path), "--help"], capture_output=True, text=True)
        assert alone.returncode == 2 and "does nothing by itself" in alone.stderr


def test_local_dry_runs_install_nothing(tmp_path):
    """They print what a shell can run, in a checkout without an environment and in one with it."""
    launch = tmp_path / "launch"
    shutil.copytree(ROOT / "launch", launch)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/a.py").touch()
    (tmp_path / "setup.py").touch()

    def lines(script, *words, fails=0):
        command = ["bash", str(launch / script), *words, "--dry-run"]
        environment = {"PATH": "/usr/bin:/bin", "PYTHON": sys.executable}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == fails, done.stderr
        return done.stdout.splitlines() or [done.stderr]

    venv, *_, trained = lines("local.sh", "--config=configs/a.py:k=4", "--config.name=it's")
    assert venv == f"{sys.executable} -m venv --clear {tmp_path}/.venv"
    python = f"{tmp_path}/.venv/bin/python"
    words = "-m branchnets.main --workdir=runs/a_k=4 --config=configs/a.py:k=4"
    assert trained == f"{python} {words} '--config.name=it'\\''s'"
    *_, install, _, tested = lines("test.sh", "-m", "slow")
    assert install.startswith(f"{python} -m pip install --quiet ")
    assert install.endswith(" --editable '.[test]'")
    assert tested.startswith(f"{python} -m pytest -n auto ") and tested.endswith(" -m slow")
    assert not (tmp_path / ".venv").exists()
    assert "--node=3" in lines("local.sh", "--config=configs/a.py", "--node=3", fails=2)[0]
    assert "configs/b.py" in lines("local.sh", "--config=configs/b.py", fails=2)[0]


def test_an_old_bash_is_told_apart():
    """macOS has 3.2, which knows no mapfile."""
    asked = "for v in '3 2' '4 3' '4 4' '5 0'; do new_enough $v && echo $v; done; true"
    command = f"ROOT={ROOT}; source {ROOT}/launch/tpu/common.sh; {asked}"
    assert subprocess.check_output(["bash", "-c", command], text=True) == "4 4\n5 0\n"


def dry_run(cloud, script):
    done = cloud.run(script, *DRY[script], "--project=p", "--dry-run")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("script", DRY)
def test_a_dry_run_does_nothing(cloud, script):
    """Not even ask: it needs no gcloud, calls none, and remembers nothing."""
    commands = dry_run(cloud, script)
    assert any(line.startswith("gcloud compute tpus ") for line in commands)
    assert not cloud.calls() and not (cloud.folder / "state").exists()


def test_what_a_watch_would_do_again_is_said_where_nothing_was_done(cloud):
    said = cloud.run("watch", "--dry-run").stderr
    assert said.count("launch/tpu/run.sh does, which was not run from this checkout") == 2
    assert said.count("does, which was not run from this checkout") == 4


def test_printed_commands_are_those_that_run(cloud):
    """A shell that reads the printed line gives the stand-in what the script itself gives it."""
    cloud.up(1)
    printed = [shlex.split(line) for line in dry_run(cloud, "run") if " ssh " in line]
    cloud.ok("run", *DRY["run"], "--project=p")
    (ran,) = [call for call in cloud.calls("ssh") if "start" in " ".join(call)]
    (words,) = printed

    def without_token(call):
        return [word.split(" start ")[0] + word.partition(" start ")[2].partition(" ")[2]
                for word in call]  # fmt: skip

    assert without_token(words[3:]) == without_token(ran)
    assert cloud.started() == ["0 " + " ".join(DRY["run"])]


@pytest.mark.parametrize("script", DRY)
def test_wrong_options_are_refused(cloud, script):
    done = cloud.run(script, *DRY[script], "--nonsense")
    assert done.returncode == 2 and "--nonsense" in done.stderr and "--help" in done.stderr
    for wrong in ("--zone=", "--name=Pod_1", "--interval=soon"):
        done = cloud.run(script, *DRY[script], wrong)
        assert done.returncode == 2 and done.stderr.startswith("error: ") and not cloud.calls()


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("gcloud"), reason="needs the Google Cloud CLI")
def test_gcloud_itself_knows_the_commands(cloud):
    """Its linter parses them; it asks no server, and is kept from any account that is set up."""
    real = shutil.which("gcloud")
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(cloud.folder),
        "CLOUDSDK_CONFIG": str(cloud.folder / "no-account"),
        "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
    }
    commands = {line for script in DRY for line in dry_run(cloud, script) if "gcloud " in line}
    for options in ([], ["--spot", "--create-option=--reserved"]):
        said = cloud.ok("create", "--accelerator-type=v2-8", *options, "--dry-run")
        commands |= {line for line in said.splitlines() if line.startswith("gcloud")}
    words = [shlex.split(line) for line in commands]
    assert len({tuple(line[3:5]) for line in words}) == 8, words
    assert any("tpu-vm" in line and "create" in line and "--spot" in line for line in words)

    def lint(command):
        done = subprocess.run(
            [real, "meta", "lint-gcloud-commands", f"--command-string={command}"],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)[0]

    for command in sorted(commands):
        answer = lint(command)
        assert answer["success"], (command, answer["error_message"])
    assert not lint("gcloud compute tpus tpu-vm describe pod --zone=z --nonsense")["success"]

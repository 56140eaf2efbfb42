"""What every launch script keeps to: help, dry runs without a trace, strict bash."""

import itertools
import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import time

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
    printed = [shlex.split(line) for line in dry_run(cloud, "run") if " start " in line]
    cloud.ok("run", *DRY["run"], "--project=p")
    (ran,) = [call for call in cloud.calls("ssh") if "start" in " ".join(call)]
    (words,) = printed

    def without_token(call):
        return [word.split(" start ")[0] + word.partition(" start ")[2].partition(" ")[2]
                for word in call]  # fmt: skip

    assert without_token(words[3:]) == without_token(ran)
    assert cloud.started() == ["0 " + " ".join(DRY["run"])]


def alike(call):
    """A call without what differs each time: tokens, numbers of lines and workers."""
    text = re.sub(r"\d{8}T\d{6}Z[-\d]+", "TOKEN", shlex.join(call))
    return re.sub(r"(on_vm_run.sh status|--worker=)( ?)\d+", r"\1\2N", text).replace("WORKER", "N")


def both(cloud, script, *arguments, fails=0):
    """The calls of gcloud that a dry run prints, and those that the script then makes."""
    said = cloud.run(script, *arguments, "--dry-run").stdout.splitlines()
    printed = [shlex.split(line)[3:] for line in said if line.startswith("gcloud ")]
    before = len(cloud.calls())
    cloud.ok(script, *arguments, fails=fails)
    made = cloud.calls()[before:]
    return [[name for name, _ in itertools.groupby(map(alike, calls))] for calls in (printed, made)]


def test_a_dry_run_leaves_no_call_out(cloud):
    cloud.up(2)  # for its archive
    cloud.plan("hang", "hang")
    for script, *arguments in (
        ["setup", f"--archive={cloud.folder}/source.tar.gz"],
        ["run", "--workdir=gs://b/r", "--config=configs/coded_digits.py"],
        ["logs", "--worker=all"],
        ["run", "--stop"],
    ):
        printed, made = both(cloud, script, *arguments)
        assert printed == made and made, script
        while script == "run" and len(cloud.started()) < 2:  # or it would be stopped unsaved
            time.sleep(0.02)
    printed, made = both(cloud, "delete", "--yes")
    assert set(printed) - set(made) == {
        "queued-resources delete pod --force --zone=z --project=p --quiet"
    }
    assert set(made) < set(printed)
    printed, made = both(cloud, "create", "--accelerator-type=v3-16")
    assert printed == made


def test_a_dry_run_leaves_no_call_of_the_queue_out(cloud):
    events = [{}, {"queue": "ACTIVE"}]
    cloud.scenario(events={"queued-resources describe": events})
    printed, made = both(cloud, "create", "--accelerator-type=v3-8", "--queued", "--spot")
    assert printed == made
    printed, made = both(cloud, "delete", "--yes")
    assert set(printed) - set(made) == {"tpu-vm delete pod --zone=z --project=p --quiet"}
    assert set(made) < set(printed)


def test_a_dry_run_of_watch_leaves_no_call_out(cloud):
    """Of a restart, a slice that is made anew, and an error at last; it is never stopped."""
    cloud.up(2, "--spot")
    cloud.plan("75 preempt hang", "75 hang 2")
    cloud.start()
    printed, made = both(cloud, "watch", fails=2)
    assert not set(made) - set(printed)
    assert [call for call in dict.fromkeys(printed) if call not in made] == [
        "tpu-vm ssh pod --worker=all '--command=bash on_vm_run.sh stop; bash on_vm_run.sh status N'"
        " --zone=z --project=p --quiet"
    ]


@pytest.mark.parametrize("script", DRY)
def test_wrong_options_are_refused(cloud, script):
    done = cloud.run(script, *DRY[script], "--nonsense")
    assert done.returncode == 2 and "--nonsense" in done.stderr and "--help" in done.stderr
    for wrong in ("--zone=", "--name=Pod_1", "--interval=soon"):
        done = cloud.run(script, *DRY[script], wrong)
        assert done.returncode == 2 and done.stderr.startswith("error: ") and not cloud.calls()


#: What has no dry run, since it changes nothing.
FOLLOWS = "bash launch/tpu/on_vm_run.sh follow"


def readme_lines():
    """The commands of the section of README about machines, continued lines joined."""
    section = (ROOT / "README.md").read_text().split("\n## From one core to a pod\n")[1]
    blocks = re.findall(r"```bash\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    return [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def test_readme_calls_the_scripts_as_they_are(cloud):
    """With --dry-run, in order, with what was exported before."""
    exports, ran = "", 0
    for line in readme_lines():
        if line.startswith("export "):
            exports += line.split("#")[0] + "\n"
        elif line.startswith("bash launch/") and not line.startswith(FOLLOWS):
            command = line.split("#")[0].replace("on_vm_run.sh", "on_vm_run.sh --dry-run")
            if "on_vm_run.sh" not in command:
                command += " --dry-run"
            done = subprocess.run(
                ["bash", "-c", exports + command],
                env={**cloud.environment, "BUCKET": ""},
                cwd=ROOT,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0 and done.stdout, (command, done.stderr)
            assert "gs:///" not in done.stdout and "--project=p " not in done.stdout
            ran += 1
    assert ran >= 12 and not cloud.calls()


def commands_of_gcloud(cloud):
    """All that scripts and README give to gcloud."""
    said = [line for script in DRY for line in dry_run(cloud, script)]
    create, logs = ["create", "--accelerator-type=v2-8"], ["logs", "--worker=1"]
    for script, *options in (
        create,
        [*create, "--spot", "--create-option=--reserved"],
        ["run", "--stop"],
        [*logs, "--ssh-option=--internal-ip"],
        [*logs, "--ssh-option=--tunnel-through-iap"],
        ["setup", "--ssh-option=--tunnel-through-iap"],
        ["setup", "--ssh-option=--internal-ip"],
    ):
        said += cloud.ok(script, *options, "--dry-run").splitlines()
    recorder = cloud.folder / "recorder/gcloud"
    recorder.parent.mkdir()
    recorder.write_text(
        "#!/bin/bash\nprintf 'gcloud%s\\n' \"$(printf ' %q' \"$@\")\" >>$STANDIN/readme\n"
    )
    recorder.chmod(0o755)
    lines = [line for line in readme_lines() if "gcloud" in line or line.startswith("export ")]
    environment = {**cloud.environment, "PATH": f"{recorder.parent}:/usr/bin:/bin"}
    script = "role=objectAdmin\n" + "\n".join(lines)
    subprocess.run(["bash", "-euc", script], env=environment, check=True, cwd=cloud.folder)
    recorded = cloud.read("readme").splitlines()
    assert len(recorded) == len([line for line in lines if "gcloud" in line]) >= 9
    return {line for line in [*said, *recorded] if line.startswith("gcloud ")}


def lint(cloud, commands):
    """What gcloud's own linter says of each command."""
    file = cloud.folder / "commands.json"
    file.write_text(json.dumps([{"command_string": command} for command in commands]))
    done = subprocess.run(
        [shutil.which("gcloud"), "meta", "lint-gcloud-commands", f"--commands-file={file}"],
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(cloud.folder),
            "CLOUDSDK_CONFIG": str(cloud.folder / "no-account"),
            "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert len(answers) == len(commands)
    return answers


def flag_names(arguments):
    for argument in arguments:
        yield argument.get("name")
        yield from flag_names(argument.get("group", {}).get("arguments", []))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("gcloud"), reason="needs the Google Cloud CLI")
def test_gcloud_itself_knows_the_commands(cloud):
    """Its linter parses them; it asks no server, and is kept from any account that is set up."""
    commands = sorted(commands_of_gcloud(cloud))
    words = [shlex.split(line) for line in commands]
    verbs = {tuple(line[line.index("tpus") + 1 :][:2]) for line in words if "tpus" in line}
    assert len(verbs) == 8, verbs
    assert any("tpu-vm" in line and "create" in line and "--spot" in line for line in words)
    assert {line[5] for line in words if line[1] == "alpha"} == {"ssh", "scp"}
    *answers, wrong = lint(
        cloud, [*commands, "gcloud compute tpus tpu-vm describe pod --zone=z --nonsense"]
    )
    for answer in answers:
        assert answer["success"], (answer["command_string"], answer["error_message"])
    assert not wrong["success"]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("gcloud"), reason="needs the Google Cloud CLI")
def test_the_stand_in_takes_no_flag_that_gcloud_does_not(cloud):
    every, *table = (pathlib.Path(__file__).parent / "gcloud_flags").read_text().splitlines()
    commands, flags = zip(*(line.split(": ") for line in table), strict=True)
    asked = [
        re.sub("(alpha )?(.*)", r"gcloud \1compute tpus \2 pod", name, count=1) for name in commands
    ]
    for known, line, answer in zip(flags, asked, lint(cloud, asked), strict=True):
        names = set(flag_names(answer["args_structure"]["arguments"]))
        assert {*known.split(), *every.split()[1:]} <= names, line

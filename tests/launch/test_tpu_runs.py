"""Setting up and running on the VMs of a slice: the scripts for the VM are really run."""

import pathlib
import shutil
import subprocess
import time

import pytest

from branchnets.engine import stopping

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = "--config=configs/coded_digits.py"


def states(cloud) -> list[str]:
    """The status lines of the workers."""
    homes = sorted(cloud.folder.glob("vm*"))
    said = [cloud.on_vm(w, "on_vm_run.sh", "status").stdout for w in range(len(homes))]
    return [line.strip().split(" token=")[1] for line in said]


def wait_for(condition) -> None:
    for _ in range(200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come")


def test_setup_installs_on_every_worker(cloud):
    cloud.up(2)
    assert cloud.read("pip").splitlines() == [
        f"{worker} -m pip install --quiet --disable-pip-version-check --editable .[tpu,gcs]"
        for worker in (0, 1)
    ]
    for worker in (0, 1):
        assert (cloud.folder / f"vm{worker}/branchnets-vm/source/configs").is_dir()
    assert "16 devices" in cloud.ok("setup", f"--archive={cloud.folder}/source.tar.gz")
    assert len(cloud.read("pip").splitlines()) == 2  # the same source is not installed again


def test_setup_keeps_runs_in_the_source_when_it_is_replaced(cloud):
    cloud.up(1)
    source = cloud.folder / "vm0/branchnets-vm/source"
    (source / "runs/mine").mkdir()
    (cloud.folder / "source/runs/theirs").mkdir(parents=True)  # of an archive made by hand
    (cloud.folder / "source/setup.py").write_text("# newer")
    archive = cloud.folder / "newer.tar.gz"
    subprocess.run(["tar", "-C", str(cloud.folder / "source"), "-czf", archive, "."], check=True)
    cloud.ok("setup", f"--archive={archive}")
    assert (source / "setup.py").read_text() == "# newer"
    assert [run.name for run in (source / "runs").iterdir()] == ["mine"]


def test_setup_takes_a_checkout_as_it_is(cloud, tmp_path):
    """Uncommitted and new files too, ignored and deleted ones not; and the commit."""
    root = tmp_path / "repository"
    (root / "launch").mkdir(parents=True)
    for name in ("setup.py", "gone.py", ".gitignore"):
        (root / name).write_text("runs\n")
    here = "cp -r launch/tpu"
    subprocess.run(f"{here} launch/shell.sh {root}/launch", shell=True, check=True, cwd=ROOT)
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    (root / "setup.py").write_text("changed")
    (root / "new.py").write_text("")
    (root / "gone.py").unlink()
    cloud.scenario(workers=1, type="v3-8")
    cloud.devices(1, 8)
    cloud.ok("create", "--accelerator-type=v3-8")
    environment = dict(cloud.environment, BRANCHNETS_LAUNCH_STATE=str(root / "runs/.launch"))
    subprocess.run(
        ["bash", str(root / "launch/tpu/setup.sh"), "--name=pod", "--zone=z"],
        env=environment,
        check=True,
    )
    source = cloud.folder / "vm0/branchnets-vm/source"
    assert (source / "setup.py").read_text() == "changed" and (source / "new.py").exists()
    assert not (source / "gone.py").exists() and not list((source / "runs").iterdir())
    head, there = (
        subprocess.check_output(["git", "-C", str(folder), "rev-parse", "HEAD"])
        for folder in (root, source)
    )
    assert head == there
    changed = subprocess.check_output([*git, "status", "--short"], cwd=root)
    assert changed.splitlines() == [b" D gone.py", b" M setup.py", b"?? new.py"]  # not touched


def test_setup_from_git_pins_the_commit(cloud, tmp_path):
    root = tmp_path / "origin"
    root.mkdir()
    (root / "setup.py").write_text("# the package")
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-qb", "main"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
    cloud.scenario(workers=2, type="v3-16")
    cloud.devices(2, 8)
    cloud.ok("create", "--accelerator-type=v3-16")
    cloud.ok("setup", f"--git=file://{root}", "--ref=main", "--extras=tpu")
    remembered = (cloud.folder / "state/p/z/pod/setup").read_text().split("\0")
    assert remembered[:3] == [f"--git=file://{root}", f"--ref={commit}", "--extras=tpu"]


def test_setup_compares_what_jax_sees(cloud):
    cloud.up(2)
    for devices, complaint in (
        ((2, 4), "16 devices, and JAX sees: all=8"),
        ((2, 8, "cpu"), "does not see the TPU"),
        ((1, 8), "JAX does not start on all workers"),
    ):
        cloud.devices(*devices)
        done = cloud.run("setup", f"--archive={cloud.folder}/source.tar.gz")
        assert done.returncode == 2 and complaint in done.stderr


def test_setup_tries_again_while_ssh_comes_up_and_reports_a_failed_install(cloud):
    refused = {"fail": "[ssh] exited with return code [255]."}
    cloud.scenario(events={"tpu-vm scp": [refused, refused]})
    cloud.ok("create", "--accelerator-type=v3-8")
    (cloud.folder / "pip-fails").touch()
    archive = cloud.folder / "a.tar.gz"
    subprocess.run(["tar", "-C", ROOT, "-czf", archive, "setup.py"], check=True)
    done = cloud.run("setup", f"--archive={archive}")
    assert len(cloud.calls("scp")) == 3
    assert done.returncode == 2 and "the install failed" in done.stderr


def test_a_run_is_started_once_with_its_arguments(cloud):
    cloud.up(2)
    cloud.plan("hang", "hang")
    cloud.start("--config.name=it's here", "--token=first")
    cloud.start("--config.name=it's here", "--token=first")  # as when ssh broke the first time
    words = f"--workdir=gs://b/run {CONFIG}:smoke --config.name=it's here"
    wait_for(lambda: len(cloud.started()) == 2)
    assert sorted(cloud.started()) == [f"0 {words}", f"1 {words}"]
    assert states(cloud) == ["first state=running code=-"] * 2
    done = cloud.run("run", "--workdir=gs://b/other", CONFIG, "--token=second")
    assert done.returncode == 2 and "still runs first" in done.stderr
    assert cloud.read("state/p/z/pod/token") == "first\0"
    assert cloud.ok("run", "--stop").count(f"state=ended code={stopping.PREEMPTED}") == 2
    # ssh would take what was typed for whatever comes after the script.
    assert "saved" in cloud.ok("logs", "--worker=1", input="typed\n")


def test_a_broken_connection_does_not_start_twice(cloud):
    """Worker 1 is not reached at first, worker 0 has started when its connection breaks."""
    cloud.up(2)
    cloud.plan("hang", "hang")
    broken = [{"late_drop": [0], "drop": [1]}]
    ssh = len(cloud.calls("ssh")) + 1  # after it was asked for its state
    cloud.scenario(workers=2, type="v3-16", events={"tpu-vm ssh": [{}] * ssh + broken})
    cloud.start()
    wait_for(lambda: len(cloud.started()) == 2)
    assert all("state=running" in state for state in states(cloud))


def test_a_worker_that_is_never_reached_is_named(cloud):
    cloud.up(2)
    for asked, complaint in ((0, "did not answer; nothing was started"), (1, "did not start on")):
        ssh = len(cloud.calls("ssh")) + asked
        cloud.scenario(workers=2, events={"tpu-vm ssh": [{}] * ssh + [{"drop": [1]}] * 3})
        done = cloud.run("run", "--workdir=gs://b/run", CONFIG)
        assert done.returncode == 2 and "ssh-add" in done.stderr
        assert "ssh pod --worker=0 --command=true --zone=z --project=p --quiet\n" in done.stderr
        assert "worker 1" in done.stderr and complaint in done.stderr
        assert asked == len(cloud.started()), cloud.started()


def test_several_workers_need_a_bucket(cloud):
    cloud.up(2)
    for given in (["--workdir=runs/a"], ["--workdir", "/data/a"], []):
        done = cloud.run("run", *given, CONFIG)
        assert done.returncode == 2 and "gs://BUCKET/RUN" in done.stderr
    cloud.scenario(workers=1, type="v3-8")
    done = cloud.run("run", "--workdir=here", CONFIG)
    assert done.returncode == 2 and "runs/RUN" in done.stderr
    assert not cloud.started()
    assert "goes with it" in cloud.ok("run", "--workdir=runs/a", CONFIG)


def test_a_dry_run_tells_several_workers_by_the_type(cloud):
    """Given, or as create.sh was; a slice of v2-8 has one worker, a larger one several."""
    run = ["--workdir=/data/a", CONFIG, "--dry-run"]
    assert cloud.run("run", *run, "--accelerator-type=v2-8").returncode == 0
    assert "gs://BUCKET/RUN" in cloud.ok("run", *run, "--accelerator-type=v3-32", fails=2)
    cloud.ok("create", "--accelerator-type=v3-16")
    assert "gs://BUCKET/RUN" in cloud.ok("run", *run, fails=2)


@pytest.mark.parametrize(
    "wrong, complaint",
    [
        ([CONFIG, "--confg.seed=2"], "unknown argument --confg.seed=2"),
        ([CONFIG, "--grace", "5"], "unknown argument --grace;"),
        ([], "no config given"),
        (["--config=configs/nope.py"], "no file configs/nope.py in"),
        ([f"--config={ROOT}/configs/coded_digits.py"], "relative to the repository's root"),
    ],
)
def test_wrong_words_for_the_trainer_start_nothing(cloud, wrong, complaint):
    done = cloud.run("run", "--workdir=gs://b/run", *wrong)
    assert done.returncode == 2 and complaint in done.stderr and not cloud.calls()


def test_the_run_outlives_its_starter_and_its_end_is_known(cloud):
    """A trainer that ignores SIGTERM is killed; one that is killed with its supervisor is lost."""
    cloud.up(1)
    cloud.plan("stuck hang")
    cloud.start()
    log = cloud.folder / "vm0/branchnets-vm/run/log"
    wait_for(lambda: "worker 0: stuck" in log.read_text())
    done = cloud.run("run", "--stop", "--grace=0")
    assert done.returncode == 1 and "without a last save" in done.stderr
    assert "state=lost code=137" in done.stdout
    cloud.start()
    wait_for(lambda: "worker 0: hang" in log.read_text())
    cloud.close()  # the supervisor too, which so leaves no code
    assert states(cloud)[0].endswith("state=lost code=137")


def test_a_trainer_outlives_its_supervisor_and_is_known(cloud):
    """It is running, no second one is started, no setup pulls its source away, and stop ends it."""
    cloud.up(1)
    cloud.plan("hang")
    cloud.start("--token=first")
    run = cloud.folder / "vm0/branchnets-vm/run"
    wait_for(lambda: "worker 0: hang" in (run / "log").read_text())
    cloud.kill(int((run / "process").read_text().split()[1]))
    assert states(cloud) == ["first state=running code=-"]
    for script, *arguments in (
        ("run", "--workdir=gs://b/other", CONFIG),
        ("setup", f"--archive={cloud.folder}/source.tar.gz"),
    ):
        done = cloud.run(script, *arguments)
        assert done.returncode == 2 and "stop it first" in done.stderr and "first" in done.stderr
    assert "stop it first" in cloud.on_vm(0, "on_vm_run.sh", "start", "second").stderr
    assert len(cloud.started()) == 1
    cloud.run("run", "--stop")
    assert states(cloud) == ["first state=lost code=137"]  # nobody was there to hear its code
    assert (run / "log").read_text().endswith("saved\n")


def test_a_start_that_has_ended_is_not_called_started(cloud):
    cloud.up(1)
    cloud.start("--token=first")
    wait_for(lambda: states(cloud) == ["first state=ended code=0"])
    done = cloud.run("run", "--workdir=gs://b/run", CONFIG, "--token=first")
    assert done.returncode == 2 and "has ended on worker 0 already, with 0" in done.stderr


def test_a_vm_without_a_new_python_gets_one_from_uv(cloud):
    """As the images of Cloud TPU: Ubuntu 22.04, whose python3 is 3.10."""
    cloud.up(1)
    tools = cloud.folder / "tools"
    tools.mkdir()
    (tools / "curl").symlink_to(cloud.folder / "bin/curl")
    for name in "mkdir rm tar gzip cksum ln mv flock env bash cat dirname".split():
        (tools / name).symlink_to(shutil.which(name))
    old = 'case "$*" in *"-c import"*) exit 1 ;; *) echo "$*" >>"$STANDIN/old" ;; esac'
    (tools / "python3").write_text(f"#!/bin/bash\n{old}\n[ ! -e $STANDIN/offline ]\n")
    (tools / "python3").chmod(0o755)
    cloud.environment["PATH"] = str(tools)
    shutil.rmtree(cloud.folder / "vm0/branchnets-vm/venv")
    install = ["on_vm_setup.sh", "--archive=branchnets.tar.gz"]
    cloud.on_vm(0, *install)  # which has no pip in the end, since the stand-in makes no environment
    base = cloud.folder / "vm0/branchnets-vm"
    assert cloud.read("old").splitlines() == [
        f"-m pip install --quiet --target={base}/uv uv",
        f"-m uv venv --quiet --seed --clear --python=3.11 {base}/venv",
    ]
    (cloud.folder / "offline").touch()
    done = cloud.on_vm(0, *install)
    assert done.returncode == 1 and "install Python 3.11 with venv" in done.stderr


def test_another_python_makes_another_environment(cloud):
    cloud.up(1)
    (cloud.folder / "bin/python3.12").symlink_to(cloud.folder / "bin/python3.11")
    venv = cloud.folder / "vm0/branchnets-vm/venv/bin/python"
    venv.unlink()
    venv.write_text('#!/bin/sh\ncase "$*" in *version_info*) exit 1 ;; esac\n')
    venv.chmod(0o755)
    again = ["on_vm_setup.sh", "--archive=branchnets.tar.gz"]
    assert "Making" not in cloud.on_vm(0, *again).stderr  # any that is there will do
    assert "with python3.12" in cloud.on_vm(0, *again, "--python=3.12").stderr


def test_a_person_on_a_vm_needs_its_checkout_alone(cloud):
    """No gcloud, archive or token: the checkout is used where it is, and a run started twice."""
    home = cloud.folder / "vm0"
    (cloud.folder / "vm1").mkdir()
    launch = home / "branchnets/launch"
    shutil.copytree(ROOT / "launch", launch)
    (home / "branchnets/setup.py").touch()
    setup, run = (f"branchnets/launch/tpu/on_vm_{name}.sh" for name in ("setup", "run"))
    for _ in range(2):
        done = cloud.on_vm(0, setup)
        assert done.returncode == 0 and "branchnets-source checkout" in done.stdout, done.stderr
    assert len(cloud.read("pip").splitlines()) == 1
    source = home / "branchnets-vm/source"
    assert source.samefile(home / "branchnets")
    cloud.on_vm(0, str(source.relative_to(home) / "launch/tpu/on_vm_setup.sh"))
    assert source.samefile(home / "branchnets") and launch.exists()
    cloud.plan("75 hang")
    words = ["--workdir=gs://b/run", CONFIG]
    cloud.on_vm(0, run, "start", *words)
    wait_for(lambda: "state=ended code=75" in cloud.on_vm(0, run, "status").stdout)
    assert "state=running" in cloud.on_vm(0, run, "start", *words).stdout
    wait_for(lambda: len(cloud.started()) == 2)
    assert "state=ended code=75" in cloud.on_vm(0, run, "stop").stdout
    assert set(cloud.started()) == {"0 " + " ".join(words)}
    assert not (home / "branchnets/venv").exists()
    assert "on_vm_setup.sh on every worker" in cloud.on_vm(1, f"../vm0/{run}", "start", "-a").stderr


def test_dry_runs_on_a_vm_print_and_do_nothing(cloud):
    cloud.up(1)
    (cloud.folder / "vm0/branchnets-vm/installed").unlink()
    pip = cloud.read("pip")
    run = cloud.on_vm(0, "on_vm_run.sh", "--dry-run", "start", "t", "--config.name=it's")
    assert run.stdout.splitlines()[-1].startswith("setsid nohup ") and "it\\'s" in run.stdout
    setup = cloud.on_vm(0, "on_vm_setup.sh", "--archive=branchnets.tar.gz", "--dry-run")
    assert "-m pip install --quiet" in setup.stdout and setup.returncode == 0
    assert "tar -xzf branchnets.tar.gz -C " in setup.stdout
    assert "(archive branchnets.tar.gz)" in setup.stderr
    assert "jax.distributed" in cloud.on_vm(0, "on_vm_setup.sh", "--check", "--dry-run").stdout
    shutil.rmtree(cloud.folder / "vm0/branchnets-vm")  # as on a machine that is no VM
    stop = cloud.on_vm(0, "on_vm_run.sh", "--dry-run", "stop")
    assert (stop.returncode, stop.stdout) == (0, "") and stop.stderr.startswith("# nothing to stop")
    assert not cloud.started() and cloud.read("pip") == pip


@pytest.mark.parametrize("word", ["--dry-run", "--help", "-h"])
def test_what_belongs_before_the_command_starts_nothing_after_it(cloud, word):
    cloud.up(1)
    for command in (["start", "--workdir=runs/a", CONFIG], ["stop"], ["status"]):
        done = cloud.on_vm(0, "on_vm_run.sh", *command, word)
        assert done.returncode == 2 and f"on_vm_run.sh {word} {command[0]}" in done.stderr
    assert not (cloud.folder / "vm0/branchnets-vm/run").exists()


def test_a_commit_of_no_repository_is_not_passed_over(cloud):
    cloud.up(1)
    pip = cloud.read("pip")
    for words in ([], ["--archive=branchnets.tar.gz"], ["--check"], ["--dry-run"]):
        done = cloud.on_vm(0, "on_vm_setup.sh", "--ref=v1", *words)
        assert (done.returncode, done.stdout) == (2, "") and "--ref=v1 needs --git" in done.stderr
    assert cloud.read("pip") == pip


def test_a_later_process_of_the_same_number_is_not_the_trainer(cloud):
    """As after the VM was restarted: neither taken for the run, nor stopped."""
    cloud.up(1)
    cloud.start()
    run = cloud.folder / "vm0/branchnets-vm/run"
    wait_for(lambda: (run / "code").exists())
    (run / "code").unlink()
    with subprocess.Popen(["sleep", "30"], start_new_session=True) as other:
        try:
            token, _, rest = (run / "process").read_text().split(" ", 2)
            (run / "process").write_text(f"{token} {other.pid} {rest}")
            assert states(cloud)[0].endswith("state=lost code=137")
            assert "state=lost" in cloud.run("run", "--stop").stdout
            assert other.poll() is None
        finally:
            other.kill()


@pytest.mark.parametrize("script", ["setup", "run", "logs"])
def test_what_is_not_there_is_said(cloud, script):
    run = ["--workdir=gs://b/r", CONFIG]
    arguments = {"run": run, "setup": ["--git=https://h/r.git"]}.get(script, [])
    done = cloud.run(script, *arguments)
    assert done.returncode != 0
    if script != "logs":
        assert "create.sh" in done.stderr
        (cloud.folder / "slice").write_text("PREEMPTED")
        assert "watch.sh" in cloud.run(script, *arguments).stderr

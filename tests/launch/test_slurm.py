"""SLURM jobs, on stand-ins for sbatch, srun and scontrol that record what they are given."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from branchnets import main

ROOT = pathlib.Path(__file__).parents[2]
SUBMIT = ["bash", str(ROOT / "launch/slurm/submit.sh")]
# Runs the command as two tasks at once, and ends with the highest of their codes. Like srun, it
# takes SIGTERM as the order to kill the tasks, and hands on none. Their SIGTERM comes from scancel,
# which leaves a file: whoever signals a task is its parent.
SRUN = """
import os, pathlib, signal, subprocess, sys, time
command = sys.argv[1:]
while command[0].startswith("--"):
    del command[0]
folder = pathlib.Path(os.environ["STANDIN"])
(folder / "cpus").write_text(os.environ.get("SRUN_CPUS_PER_TASK", "as SLURM likes"))
tasks = [
    subprocess.Popen(command, env={**os.environ, "SLURM_PROCID": str(number)}) for number in (0, 1)
]
signal.signal(signal.SIGTERM, lambda *_: [task.kill() for task in tasks])
while any(task.poll() is None for task in tasks):
    if (folder / "scancel").exists():
        (folder / "scancel").rename(folder / "scancelled")
        for task in tasks:
            task.terminate()
    time.sleep(0.02)
sys.exit(max(code if code >= 0 else 128 - code for code in (task.wait() for task in tasks)))
"""
TRAINER = """
trap 'sleep "${SAVING:-0}"; echo "$SLURM_PROCID" >>"$STANDIN/saved"; exit 75' TERM
code=$(cut -d' ' -f$((SLURM_PROCID + 1)) "$STANDIN/codes")
echo "$SLURM_PROCID $*" >>"$STANDIN/started"
[ "$code" = hang ] || exit "$code"
for _ in {1..400}; do sleep 0.05; [ -e /proc/$PPID ] || exit 1; done  # killed with its task
"""
SCONTROL = """
if [ "$1" = show ]; then echo "   StartTime=2026-03-01T12:00:00 EndTime=2026-03-02T12:00:00
   PreemptEligibleTime=2026-03-01T12:00:00 PreemptTime=${PREEMPTED:-None}"
else echo "$*" >>"$STANDIN/scontrol"; fi
"""


@pytest.fixture
def cluster(tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    bash = "/usr/bin/env bash"
    for name, (shell, body) in {
        "sbatch": (bash, 'printf "%s\\n" "$@" >"$STANDIN/submitted"'),
        "scontrol": (bash, SCONTROL),
        "scancel": (bash, 'echo "$*" >"$STANDIN/scancel"'),
        "srun": (f"{sys.executable} -S", SRUN),
        "python": (bash, TRAINER),
    }.items():
        (tools / name).write_text(f"#!{shell}\n{body}\n")
        (tools / name).chmod(0o755)
    environment = {
        "PATH": f"{tools}:/usr/bin:/bin",
        "STANDIN": str(tmp_path),
        "SLURM_JOB_ID": "17",
    }
    return tmp_path, environment


CONFIG = "--config=configs/coded_digits.py:smoke"


def submit(cluster, *arguments):
    folder, environment = cluster
    words = [*SUBMIT, f"--python={folder}/bin/python", *arguments]
    return subprocess.run(words, env=environment, capture_output=True, text=True)


def job(cluster, codes, *options, send=None, **variables):
    """Runs the batch script as a node would; its code, its errors, and what scontrol was told."""
    folder, environment = cluster
    checkout = folder / "checkout"
    if not checkout.exists():
        (checkout / "runs").mkdir(parents=True)
        (checkout / "launch").symlink_to(ROOT / "launch")
    for name in ("scontrol", "started"):
        (folder / name).unlink(missing_ok=True)
    (folder / "codes").write_text(codes + "\n")
    words = ["bash", str(ROOT / "launch/slurm/train.sbatch"), f"--python={folder}/bin/python"]
    running = subprocess.Popen(
        [*words, *options, "--", "--workdir=w"],
        cwd=checkout,
        env={**environment, **variables},
        stderr=subprocess.PIPE,
        text=True,
    )
    if send is not None:
        started = folder / "started"
        for _ in range(200):
            if started.exists() and len(started.read_text().splitlines()) == 2:
                break
            time.sleep(0.05)
        running.send_signal(send)
        if send == signal.SIGTERM:  # SLURM sends it to all processes of the job, so to srun
            children = pathlib.Path(f"/proc/{running.pid}/task/{running.pid}/children")
            for child in children.read_text().split():
                if b"/srun" in pathlib.Path(f"/proc/{child}/cmdline").read_bytes():
                    os.kill(int(child), send)
    _, errors = running.communicate(timeout=30)
    told = folder / "scontrol"
    return running.returncode, errors, told.read_text() if told.exists() else ""


def test_a_job_is_submitted_with_what_it_needs(cluster):
    words = ["--nodes=2", "--gpus=4", "--sbatch=--partition=gpu", "--workdir=runs/a b", CONFIG]
    done = submit(cluster, *words)
    assert done.returncode == 0, done.stderr
    words = (cluster[0] / "submitted").read_text().splitlines()
    script = words.index(f"{ROOT}/launch/slurm/train.sbatch")
    assert set(words[:script]) == {
        "--nodes=2", "--ntasks-per-node=4", "--gpus-per-node=4", "--time=24:00:00",
        "--signal=B:USR1@300", "--requeue", "--open-mode=append", f"--chdir={ROOT}",
        "--partition=gpu",
    }  # fmt: skip
    assert words[-3:] == ["--", "--workdir=runs/a b", CONFIG]


def test_a_task_a_node_is_started_once_there(cluster):
    submit(cluster, "--gpus=4", "--tasks=node", "--cpus=32", "--workdir=w", CONFIG)
    words = (cluster[0] / "submitted").read_text().splitlines()
    assert "--ntasks-per-node=1" in words and "--gpus-per-node=4" in words
    assert "--cpus-per-task=32" in words


def test_tasks_get_the_cpus_that_the_job_asked_for(cluster):
    """srun does not take them over from sbatch by itself (SLURM 22.05 and newer)."""
    job(cluster, "0 0", SLURM_CPUS_PER_TASK="8")
    assert (cluster[0] / "cpus").read_text() == "8"
    job(cluster, "0 0")
    assert (cluster[0] / "cpus").read_text() == "as SLURM likes"


@pytest.mark.parametrize(
    "wrong, complaint",
    [
        ([CONFIG], "--workdir"),
        (["--workdir=w", CONFIG, "--gpus=two"], "--gpus=two"),
        (["--workdir=w", CONFIG, "--gpus=0"], "start at 1"),
        (["--workdir=w", CONFIG, "--cpus=0"], "start at 1"),
        (["--workdir=w", CONFIG, "--tasks=core"], "--tasks=core"),
        (["--workdir=w", CONFIG, "--python=/nowhere"], "/nowhere"),
        (["--workdir=w", CONFIG, "--node=3"], "--node=3; options are written --option=value"),
        (["--workdir=w", CONFIG, "--nodes", "3"], "--nodes; options"),
        (["--workdir=w", CONFIG, "3"], "unknown argument 3"),
        (["--workdir=w", CONFIG, "--confg.seed=2"], "--confg.seed=2"),
        (["--workdir=w", CONFIG, "--mode=evaluate"], "train or eval"),
        (["--workdir=w"], "no config given"),
        (["--workdir=w", "--config"], "--config needs a value"),
        (["--workdir=w", "--config=configs/nope.py:smoke"], "no file configs/nope.py in"),
    ],
)
def test_wrong_options_submit_nothing(cluster, wrong, complaint):
    done = submit(cluster, *wrong)
    assert done.returncode == 2 and complaint in done.stderr
    assert not (cluster[0] / "submitted").exists()


def test_dry_runs_print_and_do_nothing(cluster):
    done = submit(cluster, "--workdir=w", CONFIG, "--config.name=it's", "--dry-run")
    line = done.stdout.strip()
    assert line.startswith("sbatch --nodes=1") and not (cluster[0] / "submitted").exists()
    # Pasted, it is what would have been run.
    subprocess.run(["bash", "-c", line], env=cluster[1], check=True)
    words = (cluster[0] / "submitted").read_text().splitlines()
    assert words[-4:] == ["--", "--workdir=w", CONFIG, "--config.name=it's"]
    words = ["bash", "launch/slurm/train.sbatch", "--python=p", "--dry-run", "--", "a"]
    said = subprocess.check_output(words, env=cluster[1], text=True, cwd=ROOT)
    assert "\nsrun " in said and 'scontrol requeue "$SLURM_JOB_ID"' in said
    assert said.index('SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"') < said.index("srun ")
    task = ["bash", str(ROOT / "launch/slurm/task.sh"), "--dry-run", "echo", "it's"]
    assert subprocess.check_output(task, text=True) == "echo 'it'\\''s'\n"
    assert not (cluster[0] / "started").exists()


def test_the_scripts_know_the_flags_of_the_trainer(cluster):
    """All of them, and no others; an evaluation needs no config."""
    own = {name for name in main._flags() if name not in ("workdir", "config", "mode")}
    words = [f"--{name}=1" for name in sorted(own)]
    spaced = ["--workdir", "w", "--config", "configs/coded_digits.py", "--noconfig.ema"]
    done = submit(cluster, *words, *spaced, "--dry-run")
    assert done.returncode == 0 and done.stdout.strip().endswith(" ".join([*words, *spaced]))
    assert submit(cluster, "--workdir=w", "--mode=eval", "--dry-run").returncode == 0


@pytest.mark.parametrize(
    "codes, ends, again",
    [
        ("0 0", 0, False),
        ("0 76", 0, True),
        ("76 134", 0, True),
        ("137 0", 0, True),
        ("2 76", 2, False),  # an error hides behind no lost peer
        ("134 1", 1, False),
        ("75 75", 75, False),  # somebody else asked it to stop
        ("76 99", 52, False),
    ],
)
def test_what_is_queued_again(cluster, codes, ends, again):
    code, errors, told = job(cluster, codes)
    assert code == ends, errors
    assert told == ("requeue 17\n" if again else "")
    assert "99" not in codes or "task 1 ended with 99," in errors


def test_the_time_limit_saves_and_queues_again(cluster):
    code, errors, told = job(cluster, "hang hang", send=signal.SIGUSR1)
    assert (code, told) == (0, "requeue 17\n"), errors
    assert sorted((cluster[0] / "saved").read_text().split()) == ["0", "1"]
    assert (cluster[0] / "scancelled").read_text() == "--signal=TERM 17\n"


NOW = "2026-03-01T13:00:00"  # after the job's start


def test_a_preemption_that_lets_tasks_save_queues_again(cluster):
    """GraceTime tells the tasks alone; SLURM would not queue again what has ended by itself."""
    code, errors, told = job(cluster, "75 0", PREEMPTED=NOW)
    assert (code, told) == (0, "requeue 17\n"), errors
    code, errors, told = job(cluster, "75 0", PREEMPTED="2026-03-01T11:59:59")  # an earlier start
    assert (code, told) == (75, ""), errors
    code, errors, told = job(cluster, "hang hang", PREEMPTED=NOW, send=signal.SIGTERM)
    assert (code, told) == (137, ""), errors  # without it, SLURM queues again


def test_a_cancelled_job_is_killed_and_not_queued_again(cluster):
    code, errors, told = job(cluster, "hang hang", send=signal.SIGTERM)
    assert (code, told) == (137, "") and not (cluster[0] / "saved").exists(), errors


def again(cluster, codes, *options, count=1, **more):
    """Whether the job queued itself again, as the start after so many of any kind."""
    code, errors, told = job(cluster, codes, *options, SLURM_RESTART_COUNT=str(count), **more)
    assert told == ("" if code else "requeue 17\n"), errors
    assert not code or "is used up" in errors
    return not code


def test_failures_in_a_row_are_counted(cluster):
    """Whatever SLURM's own count of starts is; a job of the same number begins anew."""
    few = "--max-restarts=2"
    assert [again(cluster, "76 76", few, count=n) for n in (0, 1, 50)] == [True, True, False]
    assert [again(cluster, "76 76", few, count=n) for n in (0, 50, 51)] == [True, True, False]
    assert again(cluster, "76 76", few, "--progress=0")  # this one lasted long enough
    assert [again(cluster, "76 76", few) for _ in range(2)] == [True, False]


def test_time_limits_are_no_failures(cluster):
    """But for one that comes before a run can have got anywhere."""
    few = "--max-restarts=1"

    def reached(*options):
        return again(cluster, "hang hang", few, *options, send=signal.SIGUSR1)

    assert all(reached("--progress=0") for _ in range(3))
    assert [reached() for _ in range(2)] == [True, False]
    assert reached("--progress=0") and again(cluster, "76 76", few)
    assert [reached("--progress=0900") for _ in range(2)] == [False, False]


def test_a_save_is_no_part_of_the_time_that_a_limit_left(cluster):
    few = ["--max-restarts=0", "--progress=3"]
    assert not again(cluster, "hang hang", *few, send=signal.SIGUSR1, SAVING="3")


def test_preemptions_are_no_failures(cluster):
    """Nor does one that ends a long run leave the failures before that run counted."""
    few = "--max-restarts=1"
    assert again(cluster, "76 76", few)
    assert again(cluster, "75 76", few, PREEMPTED=NOW)
    assert again(cluster, "hang hang", few, send=signal.SIGUSR1, PREEMPTED=NOW)
    assert not again(cluster, "76 76", few)
    assert again(cluster, "75 75", few, PREEMPTED=NOW, SECONDS="3600")
    assert again(cluster, "76 76", few)


def test_a_count_that_cannot_be_kept_stops_no_job(cluster):
    """SLURM's own count of starts takes its place, so that it gives up all the same."""
    job(cluster, "0 0")
    few, failures = "--max-restarts=2", cluster[0] / "checkout/runs/slurm-17.failures"
    for text in ("1", "x\n", ""):
        failures.write_text(text)
        assert [again(cluster, "76 76", few) for _ in range(2)] == [True, False]
    failures.unlink()
    failures.mkdir()
    assert [again(cluster, "76 76", few, count=n) for n in (0, 1, 2)] == [True, True, False]
    failures.rmdir()
    failures.parent.rmdir()
    assert [again(cluster, "76 76", few, count=n) for n in (0, 1, 2)] == [True, True, False]

"""SLURM jobs, on stand-ins for sbatch, srun and scontrol that record what they are given."""

import os
import pathlib
import signal
import subprocess
import time

import pytest

from branchnets.engine import stopping

ROOT = pathlib.Path(__file__).parents[2]
SUBMIT = ["bash", str(ROOT / "launch/slurm/submit.sh")]
# Runs the command as two tasks at once, hands signals on, and ends with the highest of their codes.
SRUN = """
while [ "${1#--}" != "$1" ]; do shift; done
for task in 0 1; do SLURM_PROCID=$task "$@" & tasks="${tasks:-} $!"; done
trap 'kill -TERM $tasks' TERM
highest=0
for task in $tasks; do
  while :; do
    code=0; wait "$task" || code=$?
    kill -0 "$task" 2>/dev/null || break
  done
  [ "$code" -le "$highest" ] || highest=$code
done
exit "$highest"
"""
TRAINER = """
echo "$SLURM_PROCID $* ${JAX_LOCAL_DEVICE_IDS:-}" >>"$STANDIN/started"
code=$(cut -d' ' -f$((SLURM_PROCID + 1)) "$STANDIN/codes")
[ "$code" = hang ] || exit "$code"
trap 'exit 75' TERM
for _ in {1..400}; do sleep 0.05; done
"""


@pytest.fixture
def cluster(tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, body in {
        "sbatch": 'printf "%s\\n" "$@" >"$STANDIN/submitted"',
        "scontrol": 'echo "$*" >>"$STANDIN/scontrol"',
        "srun": SRUN,
        "python": TRAINER,
    }.items():
        (tools / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tools / name).chmod(0o755)
    environment = {
        "PATH": f"{tools}:/usr/bin:/bin",
        "STANDIN": str(tmp_path),
        "SLURM_JOB_ID": "17",
    }
    return tmp_path, environment


def submit(cluster, *arguments):
    folder, environment = cluster
    words = [*SUBMIT, f"--python={folder}/bin/python", *arguments]
    return subprocess.run(words, env=environment, capture_output=True, text=True)


def job(cluster, codes, *options, send=None, **variables):
    """Runs the batch script as a node would; its code, its errors, and what scontrol was told."""
    folder, environment = cluster
    (folder / "codes").write_text(codes + "\n")
    words = ["bash", str(ROOT / "launch/slurm/train.sbatch"), f"--python={folder}/bin/python"]
    running = subprocess.Popen(
        [*words, *options, "--", "--workdir=w"],
        cwd=ROOT,
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
        time.sleep(0.2)  # until the trainers have set their traps
        os.kill(running.pid, send)
        if send == signal.SIGTERM:  # SLURM tells the tasks itself
            children = f"/proc/{running.pid}/task/{running.pid}/children"
            for child in pathlib.Path(children).read_text().split():
                os.kill(int(child), send)
    _, errors = running.communicate(timeout=30)
    told = folder / "scontrol"
    return running.returncode, errors, told.read_text() if told.exists() else ""


def test_a_job_is_submitted_with_what_it_needs(cluster):
    done = submit(
        cluster, "--nodes=2", "--gpus=4", "--sbatch=--partition=gpu", "--workdir=runs/a b"
    )
    assert done.returncode == 0, done.stderr
    words = (cluster[0] / "submitted").read_text().splitlines()
    script = words.index(f"{ROOT}/launch/slurm/train.sbatch")
    assert set(words[:script]) == {
        "--nodes=2", "--ntasks-per-node=4", "--gpus-per-node=4", "--time=24:00:00",
        "--signal=B:USR1@300", "--requeue", "--open-mode=append", f"--chdir={ROOT}",
        "--partition=gpu",
    }  # fmt: skip
    assert words[-2:] == ["--", "--workdir=runs/a b"]


def test_a_task_a_node_takes_all_of_its_devices(cluster):
    submit(cluster, "--gpus=4", "--tasks=node", "--workdir=w")
    words = (cluster[0] / "submitted").read_text().splitlines()
    assert "--ntasks-per-node=1" in words and "--devices=0,1,2,3" in words
    assert job(cluster, "0 0", "--devices=0,1,2,3")[0] == 0
    started = (cluster[0] / "started").read_text().splitlines()
    assert sorted(started) == [f"{n} -m branchnets.main --workdir=w 0,1,2,3" for n in (0, 1)]


@pytest.mark.parametrize(
    "wrong, complaint",
    [
        (["--config=c"], "--workdir"),
        (["--workdir=w", "--gpus=two"], "--gpus=two"),
        (["--workdir=w", "--gpus=0"], "start at 1"),
        (["--workdir=w", "--tasks=core"], "--tasks=core"),
        (["--workdir=w", "--python=/nowhere"], "/nowhere"),
    ],
)
def test_wrong_options_submit_nothing(cluster, wrong, complaint):
    done = submit(cluster, *wrong)
    assert done.returncode == 2 and complaint in done.stderr
    assert not (cluster[0] / "submitted").exists()


def test_dry_runs_print_and_do_nothing(cluster):
    done = submit(cluster, "--workdir=w", "--config.name=it's", "--dry-run")
    line = done.stdout.strip()
    assert line.startswith("sbatch --nodes=1") and not (cluster[0] / "submitted").exists()
    # Pasted, it is what would have been run.
    subprocess.run(["bash", "-c", line], env=cluster[1], check=True)
    assert (cluster[0] / "submitted").read_text().endswith("--\n--workdir=w\n--config.name=it's\n")
    words = ["bash", str(ROOT / "launch/slurm/train.sbatch"), "--python=p", "--dry-run", "--", "a"]
    said = subprocess.run(words, env=cluster[1], capture_output=True, text=True, check=True).stdout
    assert "srun" in said and 'scontrol requeue "$SLURM_JOB_ID"' in said
    assert not (cluster[0] / "started").exists()


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
    ],
)
def test_what_is_queued_again(cluster, codes, ends, again):
    code, errors, told = job(cluster, codes)
    assert code == ends, errors
    assert told == ("requeue 17\n" if again else "")


def test_the_time_limit_saves_and_queues_again(cluster):
    code, errors, told = job(cluster, "hang hang", send=signal.SIGUSR1)
    assert (code, told) == (0, "requeue 17\n"), errors


def test_a_cancelled_job_is_not_queued_again(cluster):
    code, errors, told = job(cluster, "hang hang", send=signal.SIGTERM)
    assert (code, told) == (stopping.PREEMPTED, ""), errors


def test_restarts_are_counted(cluster):
    code, errors, told = job(cluster, "76 76", "--max-restarts=3", SLURM_RESTART_COUNT="3")
    assert (code, told) == (76, "") and "--max-restarts=3 is used up" in errors

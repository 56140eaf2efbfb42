"""A run is followed to its end through preemptions, failing workers and broken connections."""

import json
import os
import pathlib
import shutil
import sys
import time

import pytest

from branchnets.engine import stopping

ROOT = pathlib.Path(__file__).parents[2]
SPOT = ["--spot"]


def test_a_finished_run_ends_the_watch(cloud):
    cloud.up(2)
    cloud.start()
    said = cloud.ok("watch")
    assert "finished on 2 worker(s) after 0 restart(s)" in said and "delete.sh" in said
    assert len(cloud.started()) == 2


def test_codes_that_say_start_again(cloud):
    codes = [stopping.PREEMPTED, stopping.PEER_LOST, 134, 137, 143]
    cloud.up(1)
    cloud.plan(" ".join(map(str, [*codes, 0])))
    cloud.start()
    said = cloud.ok("watch")
    assert all(f"ended with {code}; restart {i + 1} of" in said for i, code in enumerate(codes))
    assert len(cloud.started()) == 6 and len(cloud.calls("create")) == 1


def test_other_workers_are_stopped_before_a_restart(cloud):
    """One worker was killed and the other hangs: it gets its time, then SIGTERM."""
    cloud.up(2)
    cloud.plan("hang 0", "137 0")
    cloud.start()
    said = cloud.ok("watch", "--grace=0")
    assert "stopping the others" in said and "ended with 75 137; restart 1" in said
    assert "saved" in cloud.ok("logs", "--worker=0", "--lines=100")


@pytest.mark.parametrize("code", [1, 2])
def test_an_error_of_one_worker_stops_all_and_shows_its_log(cloud, code):
    """Also where the other one ends with a code that alone would be restarted."""
    cloud.up(2)
    cloud.plan("hang 0", f"{code} 0")
    cloud.start()
    done = cloud.run("watch")
    assert done.returncode == code
    assert f"[1] start 1 of worker 1: {code}" in done.stderr
    assert f"worker 1 ended with {code}" in done.stderr
    assert len(cloud.started()) == 2


def test_restarts_are_counted(cloud):
    cloud.up(1)
    cloud.plan("137 137 137 137")
    cloud.start()
    done = cloud.run("watch", "--max-restarts=2")
    assert done.returncode == 1 and "--max-restarts=2 is used up" in done.stderr
    assert len(cloud.started()) == 3
    # Runs that last are not counted together: here every one lasts long enough.
    cloud.ok("watch", "--max-restarts=1", "--progress=0")
    assert len(cloud.started()) == 5


def test_a_preempted_spot_slice_is_made_anew(cloud):
    """Taken away in the middle of a run; all is as before, and the run started again."""
    cloud.up(2, *SPOT)
    cloud.plan("preempt 0", "hang 0")
    cloud.start("--config.seed=3")
    said = cloud.ok("watch", "--patience=0900")  # not an octal number
    assert "the slice is PREEMPTED; it is made anew" in said and "after 1 restart(s)" in said
    first, second = cloud.calls("create")
    assert first == second and "--spot" in second
    verbs = [call[1] for call in cloud.calls() if call[1] in ("create", "delete", "scp")]
    assert verbs == ["create", "scp", "delete", "create", "scp"]
    assert len(cloud.started()) == 4 and len(set(line[2:] for line in cloud.started())) == 1


def test_a_suspended_request_is_made_anew(cloud):
    """The queue deletes what was preempted; the request stays, and has to be deleted itself."""
    describe = [{}, {"queue": "ACTIVE"}]
    events = {"queued-resources describe": describe}
    cloud.up(1, *SPOT, "--queued", events=events)
    cloud.plan("hang 0")
    cloud.start()
    events["queued-resources describe"] = [
        *describe,
        {"queue": "SUSPENDING", "slice": None},
        {"queue": "SUSPENDED"},
        {},  # before it is deleted
        {},  # before it is asked for again
        {"queue": "PROVISIONING"},
        {"queue": "ACTIVE"},
    ]
    cloud.scenario(workers=1, type="v3-8", events=events)
    said = cloud.ok("watch")
    assert "request SUSPENDING" in said and "the request is SUSPENDED; it is made" in said
    assert len(cloud.calls("queued-resources", "create")) == 2
    assert len(cloud.calls("queued-resources", "delete")) == 1
    assert len(cloud.started()) == 2


def test_a_slice_is_asked_for_until_it_comes(cloud):
    cloud.up(1, *SPOT)
    cloud.plan("preempt 0")
    cloud.start()
    full = {"fail": 'There is no more capacity in the zone "z"'}
    cloud.scenario(workers=1, type="v3-8", events={"tpu-vm create": [{}, full, full]})
    said = cloud.ok("watch")
    assert said.count("no more capacity") == 2 and "after 1 restart(s)" in said
    cloud.plan("x x preempt")
    cloud.start()
    cloud.scenario(workers=1, type="v3-8", events={"tpu-vm create": [{}] * 4 + [full]})
    done = cloud.run("watch", "--patience=0")
    assert done.returncode == 1 and "no slice in 0 s" in done.stderr


def test_a_slice_that_somebody_deleted_is_not_made_anew(cloud):
    cloud.up(1)
    cloud.plan("hang")
    cloud.start()
    cloud.close()
    (cloud.folder / "slice").unlink()
    done = cloud.run("watch")
    assert done.returncode == 2 and "somebody deleted it" in done.stderr
    assert len(cloud.calls("create")) == 1


def test_broken_connections_are_borne_and_bounded(cloud):
    cloud.up(2)
    cloud.start()
    ssh, described = len(cloud.calls("ssh")), len(cloud.calls("tpu-vm", "describe"))
    down = {"drop": [1]}
    cloud.scenario(
        workers=2,
        type="v3-16",
        events={
            "tpu-vm ssh": [{}] * ssh + [down, down],
            "tpu-vm describe": [{}] * described + [{"fail": "UNAVAILABLE: try again"}],
        },
    )
    assert "worker 1 did not answer" in cloud.ok("watch", "--max-silence=60")
    ssh = len(cloud.calls("ssh"))
    cloud.scenario(workers=2, events={"tpu-vm ssh": [{}] * ssh + [down] * 99})
    done = cloud.run("watch", "--max-silence=1")
    assert done.returncode == 1 and "no look went well for" in done.stderr


def test_a_vm_with_new_disks_is_set_up_again(cloud):
    """While the other worker still runs: it is stopped first, and does not lose its source."""
    cloud.up(2)
    cloud.plan("hang 0", "hang 0")
    cloud.start()
    lost = cloud.folder / "vm1"
    for number in (lost / "branchnets-vm/run/process").read_text().split()[1::3]:
        cloud.kill(int(number))
    lost.rename(cloud.folder / "lost-vm1")
    lost.mkdir()
    said = cloud.ok("watch")
    assert "a worker was not set up; restart 1" in said and "stopping the others" in said
    assert "saved" in (cloud.folder / "vm0/branchnets-vm/run/log").read_text()
    assert len(cloud.calls("create")) == 1 and len(cloud.started()) == 4


def test_watching_needs_a_run(cloud):
    cloud.up(1)
    done = cloud.run("watch")
    assert done.returncode == 2 and "run.sh" in done.stderr


@pytest.mark.parametrize("worker", [0, None])
def test_a_stop_on_request_is_not_undone(cloud, worker):
    cloud.up(1)
    cloud.plan("hang hang")
    cloud.start()
    run = cloud.folder / "vm0/branchnets-vm/run"
    while "hang" not in (run / "log").read_text():
        time.sleep(0.02)
    if worker is None:
        cloud.ok("run", "--stop")
        assert "stopped on request" in cloud.ok("watch") and len(cloud.started()) == 1
        cloud.start()  # takes it back
        assert not (cloud.folder / "state/p/z/pod/stopped").exists()
    else:  # asked for by somebody else: SLURM's, a maintenance's or an out-of-memory signal
        cloud.on_vm(worker, "on_vm_run.sh", "stop")
        cloud.plan("hang 0")
        assert "ended with 75; restart 1" in cloud.ok("watch")


def test_a_slice_that_could_not_be_repaired_is_made_anew(cloud):
    """UNKNOWN is also a state of the API. A request that is not its own is not touched."""
    cloud.up(1)
    cloud.start()
    cloud.close()
    (cloud.folder / "slice").write_text("UNKNOWN")
    (cloud.folder / "queue").write_text("WAITING_FOR_RESOURCES")
    (cloud.folder / "nodes").write_text("other")
    done = cloud.run("watch")
    assert done.returncode == 2 and "the slice is UNKNOWN; it is made anew" in done.stderr
    assert "is for other, not for" in done.stderr
    assert [call[0] for call in cloud.calls("delete")] == ["tpu-vm"]


def test_a_request_that_waits_keeps_its_place(cloud):
    """Also when --patience ends; it is gone on waiting for by the next watch."""
    states = [{}, {"queue": "ACTIVE"}, {"queue": "SUSPENDED", "slice": None}]
    cloud.up(1, "--queued", events={"queued-resources describe": states[:2]})
    cloud.start()
    cloud.scenario(workers=1, events={"queued-resources describe": states})
    done = cloud.run("watch", "--patience=0")
    assert done.returncode == 1 and "is WAITING_FOR_RESOURCES, and stays" in done.stderr
    assert len(cloud.calls("queued-resources", "delete")) == 1
    assert cloud.read("queue") == "WAITING_FOR_RESOURCES"


def test_the_log_is_kept_on_this_machine(cloud):
    cloud.up(2)
    cloud.plan("75 preempt 0")
    cloud.start()
    cloud.ok("watch")
    kept = cloud.read("state/p/z/pod/log")
    # The third is on a new disk, whose log begins anew; the second was taken before a look at it.
    assert "start 1 of worker 0" in kept and "start 3 of worker 0" in kept
    assert kept.count("exit code 75") == 1 and "worker 1:" not in kept
    cloud.ok("delete", "--yes")
    (left,) = cloud.folder.glob("state/p/z/pod-*.log")
    assert left.read_text() == kept


def test_half_a_run_is_made_whole(cloud):
    """A worker without the run gets it; where the others have ended meanwhile, all start again."""
    cloud.up(2)
    cloud.plan("hang", "hang")
    cloud.start("--token=first")
    cloud.close()
    cloud.on_vm(1, "on_vm_run.sh", "start", "old")
    cloud.on_vm(1, "on_vm_run.sh", "stop")
    said = cloud.ok("watch")
    assert "worker 1 does not have the run; restart 1" in said and "finished on 2" in said


@pytest.mark.slow
def test_the_real_trainer_is_stopped_and_brought_to_its_end(cloud):
    """It saves on SIGTERM, ends with 75, is started again by the watch, and finishes."""
    cloud.up(1)
    base = cloud.folder / "vm0/branchnets-vm"
    python = base / "venv/bin/python"
    python.unlink()
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    shutil.rmtree(base / "source")
    (base / "source").symlink_to(ROOT)
    cloud.environment["JAX_COMPILATION_CACHE_DIR"] = os.environ["JAX_COMPILATION_CACHE_DIR"]
    workdir = cloud.folder / "run"
    config = ["--config=configs/coded_digits.py:smoke", f"--workdir={workdir}"]
    # Long enough to be met in the middle, with nothing but steps.
    config += ["--config.epochs=300", "--config.log.every_steps=1"]
    config += ["--config.eval.every_epochs=0", "--config.checkpoint.every_epochs=0"]
    cloud.ok("run", *config)
    metrics = workdir / "metrics.jsonl"
    for _ in range(600):
        if metrics.exists() and metrics.read_text():
            break
        time.sleep(0.2)
    stopped = cloud.on_vm(0, "on_vm_run.sh", "stop").stdout
    assert f"state=ended code={stopping.PREEMPTED}" in stopped
    assert list((workdir / "checkpoints").iterdir()) and not (workdir / "summary.json").exists()
    said = cloud.ok("watch", timeout=300)
    assert f"ended with {stopping.PREEMPTED}; restart 1" in said and "finished on 1 worker" in said
    assert (workdir / "summary.json").exists()
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert steps == sorted(steps)  # it went on, and did not begin anew

"""Running cells: skipping, failing, stopping; with small programs in the place of training."""

import os
import signal
import sys
import threading
import time

import pytest

from branchnets.engine.stopping import INTERRUPTED, PREEMPTED
from branchnets.errors import RunDirError
from branchnets.sweeps import run

#: Notes that it was started; then does as the file PLAN in its place says.
PROGRAM = """
import pathlib, sys, time
place, name = pathlib.Path(sys.argv[1]), sys.argv[2]
with open(place / "started", "a") as started:
    started.write(name + "\\n")
plan = place / f"plan-{name}"
if plan.exists():
    exec(plan.read_text())
(place / f"done-{name}").touch()
"""


@pytest.fixture
def runner(tmp_path):
    """Makes a runner whose cells are names; the list of what it said."""

    def make(jobs=1):
        def plan(cell):
            command = (sys.executable, "-c", PROGRAM, str(tmp_path), cell.name)
            done = (tmp_path / f"done-{cell.name}").exists
            return (run.Stage("training", command, done),)

        said = []
        return run.Runner(tmp_path / "out", plan, jobs, said.append), said

    return make


class Named:
    def __init__(self, name):
        self.name = name


def cells(names):
    return [Named(name) for name in names]


def started(tmp_path):
    return (tmp_path / "started").read_text().split()


def test_every_cell_is_run_once(runner, tmp_path):
    first, said = runner()
    outcome = first(cells("abc"))
    assert (outcome.failed, outcome.status) == ([], None)
    assert started(tmp_path) == ["a", "b", "c"]
    again, said = runner()
    assert again(cells("abcd")).status is None
    assert started(tmp_path) == ["a", "b", "c", "d"]
    assert said[:3] == [f"[{i}/4] {name}: done before" for i, name in enumerate("abc", 1)]


@pytest.mark.parametrize(
    ("plan", "how"),
    [
        ("raise SystemError('the disk is full')", "status 1"),
        ("import os; print('the disk is full', flush=True); os.kill(os.getpid(), 9)", "SIGKILL"),
        ("print('error: the disk is full', flush=True); sys.exit(2)", "status 2"),
        ("print('the disk is full', flush=True); sys.exit(0)", "status 0"),  # without its results
    ],
)
def test_a_cell_that_crashes_is_reported_and_the_others_go_on(runner, tmp_path, plan, how):
    (tmp_path / "plan-b").write_text(plan)
    crashing, said = runner()
    outcome = crashing(cells("abc"))
    assert (outcome.failed, outcome.status) == (["b"], None)
    assert (tmp_path / "done-c").exists()
    (told,) = [line for line in said if "FAILED" in line]
    assert told.startswith("[2/3] b: training FAILED with") and how in told.splitlines()[0]
    assert "the disk is full" in told  # the end of its log


@pytest.mark.parametrize("status", [PREEMPTED, INTERRUPTED])
def test_a_cell_that_was_told_to_stop_stops_the_sweep_and_it_goes_on_later(
    runner, tmp_path, status
):
    (tmp_path / "plan-b").write_text(f"sys.exit({status})")
    stopped, _ = runner()
    outcome = stopped(cells("abc"))
    assert (outcome.failed, outcome.status) == ([], status)
    assert started(tmp_path) == ["a", "b"]
    (tmp_path / "plan-b").unlink()
    resumed, _ = runner()
    assert resumed(cells("abc")).status is None
    assert started(tmp_path) == ["a", "b", "b", "c"]


#: Like a training run: saves and says so when it is asked to stop.
SAVES = """
import signal
def save(number, frame):
    (place / f"saved-{name}").write_text(signal.Signals(number).name)
    sys.exit({"SIGTERM": 75, "SIGINT": 130}[signal.Signals(number).name])
signal.signal(signal.SIGTERM, save)
signal.signal(signal.SIGINT, save)
(place / f"ready-{name}").touch()
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, PREEMPTED), (signal.SIGINT, INTERRUPTED)]
)
def test_a_signal_is_passed_on_to_the_cells_that_run(runner, tmp_path, number, status):
    for name in "ab":
        (tmp_path / f"plan-{name}").write_text(SAVES)
    ready = [tmp_path / f"ready-{name}" for name in "ab"]

    def send():
        deadline = time.monotonic() + 30
        while not all(file.exists() for file in ready) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    sender.start()
    both, _ = runner(jobs=2)
    outcome = both(cells("abc"))
    sender.join()
    assert outcome.status == status and outcome.failed == []
    names = [(tmp_path / f"saved-{name}").read_text() for name in "ab"]
    assert names == [signal.Signals(number).name] * 2
    assert sorted(started(tmp_path)) == ["a", "b"]


def test_a_second_ctrl_c_does_not_wait(runner, tmp_path):
    (tmp_path / "plan-a").write_text(
        "import signal\n"
        "signal.signal(signal.SIGINT, lambda *_: (place / 'asked').touch())\n"
        "(place / 'ready').touch()\n"
        "while True: time.sleep(0.05)\n"
    )

    def send():
        for name in ("ready", "asked"):
            deadline = time.monotonic() + 30
            while not (tmp_path / name).exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGINT)

    sender = threading.Thread(target=send)
    sender.start()
    outcome = runner()[0](cells("ab"))
    sender.join()
    assert outcome.status == INTERRUPTED
    assert started(tmp_path) == ["a"]


def test_cells_share_what_they_compile_unless_told_where(runner, tmp_path, monkeypatch):
    name = "JAX_COMPILATION_CACHE_DIR"
    note = f"import os; (place / name).write_text(os.environ[{name!r}])"
    for cell in "ab":
        (tmp_path / f"plan-{cell}").write_text(note)
    monkeypatch.delenv(name)
    runner()[0](cells("a"))
    assert (tmp_path / "a").read_text().startswith(f"{tmp_path / 'out' / run.CACHE}{os.sep}")
    monkeypatch.setenv(name, "elsewhere")
    runner()[0](cells("b"))
    assert (tmp_path / "b").read_text() == "elsewhere"


def test_cells_run_at_once(runner, tmp_path):
    for name, other in ("ab", "ba"):  # each waits for the other to begin
        (tmp_path / f"plan-{name}").write_text(
            f"(place / 'here-{name}').touch()\n"
            f"end = time.monotonic() + 30\n"
            f"while not (place / 'here-{other}').exists():\n"
            "    assert time.monotonic() < end\n"
            "    time.sleep(0.02)\n"
        )
    both, _ = runner(jobs=2)
    assert both(cells("ab")).failed == []


def test_a_directory_of_another_config_is_refused(make_grid, finish, tmp_path):
    (cell,) = make_grid("coded_digits.py", "mu:1").cells
    finish(cell, tmp_path, 0.9)
    run.check([cell], tmp_path)
    (other,) = make_grid("coded_digits.py", "mu:1", overrides=["--config.batch_size=128"]).cells
    with pytest.raises(RunDirError, match="batch_size: 64 in the run, 128 given"):
        run.check([other], tmp_path)
    (longer,) = make_grid("coded_digits.py", "mu:1", overrides=["--config.log.every_steps=3"]).cells
    run.check([longer], tmp_path)  # what may change when a run is resumed

"""Runs of two processes of which one is stopped, killed or fails; counted for results/."""

import pathlib
import random
import resource
import signal
import sys
import time

import pytest
from engine_commands import ALL, Pair, assert_same_run

from branchnets.data.streamed import order
from branchnets.engine.saving import filelist
from branchnets.engine.stopping import INTERRUPTED, PEER_LOST, PREEMPTED

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "data"))
from jpeg_tree import write_tree  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]

TRIES, EPOCHS = (20, 5) if ALL else (2, 1)  # of 32 steps
#: What becomes of the other one: it says so itself, or JAX aborts it first.
LOST = {PEER_LOST, -signal.SIGABRT}


@pytest.fixture(autouse=True)
def none_left():
    """Ends what a test that fails leaves running."""
    made = []

    class Noted(Pair):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[__name__], "Pair", Noted)
        yield
    for pair in made:
        pair.kill()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbs."""
    run = Pair(tmp_path_factory.mktemp("whole") / "run", EPOCHS)
    try:
        assert run.ends() == [0, 0], run.error
    finally:
        run.kill()
    return run.first.workdir


class Lives:
    """A run with a fault in each of its lives; where one ends before its fault, another run."""

    def __init__(self, folder):
        self._folder, self.tried, self._runs = folder, 0, 0
        self._anew()

    def _anew(self):
        assert self._runs < 6, "runs end before anything can happen to them"
        self.workdir, self.newest = self._folder / f"run{self._runs}", 0
        self._runs += 1

    def start(self):
        return Pair(self.workdir, EPOCHS)

    def count(self, run):
        """Whether the fault, after which both have ended, came in time: else it does not count."""
        self.tried += 1
        if not (run.ends() == [0, 0] or max(run.first.whole(), default=0) == 32 * EPOCHS):
            return True
        self.tried -= 1
        self._anew()
        return False


def goes_on(workdir, newest, whole):
    """Started again, both go on from a step, to the same end as if nothing had happened."""
    run = Pair(workdir, EPOCHS)
    assert run.first.resumed() == newest, run.error
    assert run.ends() == [0, 0], run.error
    assert_same_run(whole, workdir)


def test_a_signal_to_one_stops_both_after_the_same_step(whole, tmp_path, record_property):
    rng, lives, numbers = random.Random(7), Lives(tmp_path), []
    while lives.tried < TRIES:
        run, before = lives.start(), lives.newest
        moment = before + rng.randrange(0, 6)  # 0: while it starts
        begun = "Resuming" if before else "compiling the training step"
        assert run.first.until(lambda: begun in run.first.error), run.error  # noqa: B023
        run.first.until(lambda: run.first.steps() >= moment)  # noqa: B023
        time.sleep(rng.uniform(0, 0.05))
        number = signal.SIGINT if lives.tried % 5 == 4 else signal.SIGTERM
        run.both[rng.randrange(2)].process.send_signal(number)
        if not lives.count(run):
            continue
        numbers.append(number)
        expected = INTERRUPTED if number == signal.SIGINT else PREEMPTED
        assert run.ends() == [expected] * 2, run.error
        assert run.first.resumed() == before  # that which both had saved
        newest = lives.newest = max(run.first.whole())
        assert before < newest and newest >= moment
        assert f"Stopped at step {newest} of " in run.first.error
        assert filelist.damage(run.first.checkpoints / str(newest)) is None
        assert run.first.steps() == newest  # nothing was done after it, nothing is lost
    goes_on(lives.workdir, lives.newest, whole)
    record_property("tried", TRIES)
    record_property(
        "note",
        f"{numbers.count(signal.SIGTERM)} SIGTERM (both exit with {PREEMPTED}), "
        f"{numbers.count(signal.SIGINT)} SIGINT ({INTERRUPTED}); no step lost; final state and "
        "metrics bit-identical",
    )


def test_one_that_is_killed_ends_the_other_and_the_whole_goes_on(whole, tmp_path, record_property):
    rng, lives, ends, lost, slowest = random.Random(8), Lives(tmp_path), [], [0], 0.0
    while lives.tried < TRIES:
        run, life = lives.start(), lives.tried
        assert run.first.resumed() == lives.newest, run.error
        moment = lives.newest + rng.randrange(1, 2 * Pair.SAVE_EVERY)
        run.first.until(lambda: run.first.steps() >= moment)  # noqa: B023
        time.sleep(rng.uniform(0, 0.05))
        dead = life % 2  # the process that coordinates them, and the other one
        run.both[dead].kill()
        killed = time.monotonic()
        end = run.both[1 - dead].end()
        seconds = time.monotonic() - killed
        if not lives.count(run):
            continue
        assert end in LOST, run.error
        ends.append(end)
        slowest = max(slowest, seconds)
        newest = lives.newest = max(run.first.whole(), default=0)
        done = run.first.steps()
        # As one process: each save waits for the one before.
        begun = (done - 1) // Pair.SAVE_EVERY * Pair.SAVE_EVERY
        assert newest >= begun - Pair.SAVE_EVERY
        lost.append(done - newest)
        if life == TRIES // 2 and len(run.first.whole()) > 1:
            lives.newest = _damaged(run.first)
    goes_on(lives.workdir, lives.newest, whole)
    record_property("tried", TRIES)
    record_property(
        "note",
        f"a save every {Pair.SAVE_EVERY} steps, at most {max(lost)} steps lost; the other one "
        f"ended within {slowest:.0f} s, {ends.count(PEER_LOST)} times with {PEER_LOST}, "
        f"{len(ends) - ends.count(PEER_LOST)} times aborted by JAX (134); final state and metrics "
        "bit-identical",
    )


def test_an_input_that_fails_in_one_ends_both_with_what_was_trained(tmp_path, record_property):
    tree, names = tmp_path / "tree", [f"class{number}" for number in range(10)]
    for split, count, seed in (("train", 32, 0), ("test", 2, 100)):
        write_tree(tree / split, names, count, seed)
    names = sorted((tree / "train").glob("*/*"))
    # In the seventh batch of sixteen, in the part of the second process.
    damaged = names[order.permutation(0, 0, len(names))[6 * 16 + 10]]
    kept = damaged.read_bytes()
    damaged.write_bytes(kept[:100])
    flags = [
        "--config.data.name=folder", f"--config.data.data_dir={tree}", "--config.data.stream=True",
        "--config.data.image_size=8", "--config.data.channels=1", "--config.data.workers=0",
        "--config.seed=0",
    ]  # fmt: skip
    run = Pair(tmp_path / "run", 1, flags)
    statuses = run.ends()
    assert statuses == [PEER_LOST, 2], run.error
    assert "error: " in run.both[1].error and damaged.name in run.both[1].error
    other = run.first.error
    assert "process 1 failed: " in other and damaged.name in other
    # Both knew of it before, while batches lay ready: nothing that was done is lost.
    newest = max(run.first.whole(), default=0)
    assert 3 <= newest <= 6 and newest == run.first.steps(), run.error
    damaged.write_bytes(kept)
    again = Pair(tmp_path / "run", 1, flags)
    assert again.first.resumed() == newest
    assert again.ends() == [0, 0], again.error
    record_property("tried", 1)
    record_property("note", f"saved at step {newest}, which both had done")


def test_a_save_that_fails_ends_both_and_leaves_the_one_before(whole, tmp_path, record_property):
    workdir = tmp_path / "run"
    run = Pair(workdir, EPOCHS)
    assert run.first.until(lambda: run.first.whole()), run.error
    # The largest file of a checkpoint has more bytes than a file may have from now on.
    limit = (300_000, resource.RLIM_INFINITY)
    resource.prlimit(run.first.process.pid, resource.RLIMIT_FSIZE, limit)
    status, other = run.ends()
    assert status == 2 and other in LOST, run.error
    assert "could not be written to" in run.first.error
    newest = max(run.first.whole())
    assert filelist.damage(run.first.checkpoints / str(newest)) is None
    if ALL:
        goes_on(workdir, newest, whole)
    record_property("tried", 1)
    record_property("note", f"the other one exits with {other if other > 0 else 128 - other}")


def _damaged(run):
    """Cuts a file of the newest step short; returns the one before."""
    newest, before = sorted(run.whole(), reverse=True)[:2]
    file = max((f for f in (run.checkpoints / str(newest)).rglob("*") if f.is_file()),
               key=lambda f: f.stat().st_size)  # fmt: skip
    file.write_bytes(file.read_bytes()[:-10])
    return before

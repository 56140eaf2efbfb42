"""Runs that are killed, and a run whose directory another one wants; counted for results/."""

import random
import re
import signal
import time

import pytest
from engine_commands import ALL, SAVE_EVERY, Command, assert_same_run

pytestmark = pytest.mark.slow

KILLS, EPOCHS = (20, 10) if ALL else (4, 4)  # of 64 steps


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody kills, in training."""
    run = Command(tmp_path_factory.mktemp("whole") / "run", EPOCHS)
    assert run.until(lambda: run.steps() > 0), run.error
    return run


def test_a_second_process_is_refused_and_the_first_goes_on(whole, record_property):
    whole.process.send_signal(signal.SIGSTOP)  # so that it is not at its end before
    try:
        before = {f: f.stat().st_mtime_ns for f in whole.workdir.rglob("*")}
        second = Command(whole.workdir, EPOCHS)
        assert second.end() == 2
        after = {f: f.stat().st_mtime_ns for f in whole.workdir.rglob("*")}
    finally:
        whole.process.send_signal(signal.SIGCONT)
    assert re.match(rf"error: .* is in use by process {whole.process.pid} on ", second.error)
    assert before == after
    assert whole.end() == 0, whole.error
    record_property("tried", 1)
    record_property("note", "the second one exits with 2, names the first and changes no file")


def test_a_run_that_is_killed_again_and_again_ends_as_if_nothing_had_happened(
    whole, tmp_path, record_property
):
    rng = random.Random(5)
    workdir, newest, losses = tmp_path / "run", 0, {True: [0], False: [0]}
    for life in range(KILLS):
        run = Command(workdir, EPOCHS)
        assert run.resumed() == newest, run.error  # the newest that was there, and it is whole
        assert "damaged" not in run.error
        saving_wanted = life % 2 == 1  # saves are short: every other kill waits for one
        if saving_wanted:
            assert run.until(run.saving, pause=0), run.error
        else:
            moment = newest + rng.randrange(1, 2 * SAVE_EVERY)
            assert run.until(lambda: run.steps() >= moment), run.error  # noqa: B023
        time.sleep(rng.uniform(0, 0.05))
        run.kill()
        done, saving, newest = run.steps(), run.saving(), max(run.whole(), default=0)
        saving |= done - newest > SAVE_EVERY  # it was asked for, and nothing of it is there yet
        # Each save waits for the one before: all but the last two of the intervals begun are there.
        assert newest >= (done - 1) // SAVE_EVERY * SAVE_EVERY - SAVE_EVERY
        losses[saving].append(done - newest)
    run = Command(workdir, EPOCHS)
    assert run.resumed() == newest
    assert run.end() == 0, run.error
    assert whole.end() == 0, whole.error
    assert_same_run(whole.workdir, workdir)
    record_property("tried", KILLS)
    record_property(
        "note",
        f"a save every {SAVE_EVERY} steps; {len(losses[False]) - 1} between saves, at most "
        f"{max(losses[False])} steps lost; {len(losses[True]) - 1} while one was being written, at "
        f"most {max(losses[True])} lost; final state and metrics bit-identical",
    )

"""Disks that are full, and directories that become read-only; counted for results/."""

import os
import resource
import shutil
import subprocess

import pytest
from engine_commands import ALL, Command, assert_same_run

from branchnets.engine.saving import filelist

pytestmark = pytest.mark.slow

EPOCHS = 2  # of 64 steps
LEFT = 200_000  # bytes: enough for metrics, too few for a checkpoint


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbs."""
    run = Command(tmp_path_factory.mktemp("whole") / "run", EPOCHS)
    assert run.end() == 0, run.error
    return run.workdir


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 16 MB, where one may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m,mode=755", "branchnets-test", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(place, leave):
    """Leaves so many bytes of a file system."""
    stat = os.statvfs(place)
    with (place / "ballast").open("wb") as stream:
        stream.write(bytes(stat.f_bavail * stat.f_frsize - leave))


def stopped_by_the_disk(run, words):
    """The run ended with one clear line and its newest checkpoint whole; returns its step."""
    assert run.end() == 2, run.error
    # Not always the last line: threads of orbax whose save failed may still have something to say.
    (error,) = (line for line in run.error.splitlines() if line.startswith("error: "))
    assert words in error, run.error
    newest = max(run.whole())
    assert filelist.damage(run.checkpoints / str(newest)) is None
    return newest


def cause(run):
    """What the last line blames."""
    return "the checkpoint" if "error: a checkpoint takes" in run.error else "the metrics"


def goes_on(workdir, newest, whole):
    """With space again, the same command goes on from there to the same end."""
    run = Command(workdir, EPOCHS)
    assert run.resumed() == newest and "damaged" not in run.error
    assert run.end() == 0, run.error
    assert_same_run(whole, workdir)


def remount(place, how):
    subprocess.run(["mount", "-o", f"remount,{how}", str(place)], check=True)


@pytest.mark.parametrize("leave", [LEFT, 0])
def test_a_full_disk_ends_the_run_and_with_space_it_goes_on(
    whole, small_disk, record_property, leave
):
    run = Command(small_disk / "run", EPOCHS)
    assert run.until(lambda: run.whole()), run.error
    fill(small_disk, leave)
    words = "MB are free on the disk" if leave else "No space left on device"
    newest = stopped_by_the_disk(run, words)
    assert "Traceback" not in run.error, run.error  # as orbax would leave many of them
    assert cause(run) == ("the checkpoint" if leave else "the metrics")
    if leave == 0 or ALL:
        full = Command(small_disk / "run", EPOCHS)  # started again on the full disk
        assert full.end() == 2 and "Traceback" not in full.error, full.error
        assert max(full.whole()) == newest
    (small_disk / "ballast").unlink()
    goes_on(small_disk / "run", newest, whole)
    record_property("tried", 1)
    record_property("note", f"{leave // 1000} kB left: {cause(run)}")


def test_a_save_that_fails_in_the_middle_leaves_the_one_before(whole, tmp_path, record_property):
    workdir = tmp_path / "run"
    run = Command(workdir, EPOCHS)
    assert run.until(lambda: run.whole()), run.error
    # The largest file of a checkpoint has more bytes than a file may have from now on.
    resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
    newest = stopped_by_the_disk(run, "could not be written to")
    assert "File too large. Older ones are whole" in run.error
    assert run.saving()  # what is left of it is under another name, and goes with the next save
    goes_on(workdir, newest, whole)
    assert not run.saving()
    record_property("tried", 1)
    record_property("note", "in the middle of a file, by a limit of the process")


def test_a_read_only_directory_is_refused_and_can_be_evaluated(whole, small_disk, record_property):
    shutil.copytree(whole, small_disk / "run")
    before = {f: f.stat().st_mtime_ns for f in small_disk.rglob("*")}
    remount(small_disk, "ro")
    for workdir in (small_disk / "run", small_disk / "new"):
        run = Command(workdir, EPOCHS)
        assert run.end() == 2
        assert run.error.startswith("error: ") and len(run.error.splitlines()) == 1, run.error
        assert "cannot be written: Read-only file system" in run.error
    evaluation = Command(small_disk / "run", EPOCHS, mode="eval")
    assert evaluation.end() == 0, evaluation.error
    assert before == {f: f.stat().st_mtime_ns for f in small_disk.rglob("*")}
    record_property("tried", 3)
    record_property("note", "a run, a new one, and an evaluation, which alone is possible")

"""Disks that are full, and directories that become read-only; counted for results/."""

import os
import shutil
import subprocess

import pytest
from engine_commands import Command, assert_same_run

from branchnets.engine import filelist

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
    last = run.error.strip().splitlines()[-1]
    assert last.startswith("error: ") and words in last, run.error
    assert "Traceback" not in run.error and "Exception in thread" not in run.error, run.error
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


@pytest.mark.parametrize("leave", [LEFT, 0])
def test_a_full_disk_ends_the_run_and_with_space_it_goes_on(
    whole, small_disk, record_property, leave
):
    run = Command(small_disk / "run", EPOCHS)
    assert run.until(lambda: run.whole()), run.error
    fill(small_disk, leave)
    words = "MB are free on the disk" if leave else "No space left on device"
    newest = stopped_by_the_disk(run, words)
    assert cause(run) == ("the checkpoint" if leave else "the metrics")
    full = Command(small_disk / "run", EPOCHS)  # started again on the full disk
    assert full.end() == 2 and "Traceback" not in full.error, full.error
    assert max(full.whole()) == newest
    (small_disk / "ballast").unlink()
    goes_on(small_disk / "run", newest, whole)
    record_property("tried", 1)
    record_property("note", f"{leave // 1000} kB left: {cause(run)}")

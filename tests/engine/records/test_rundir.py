"""A run directory is created once, resumed with the same config, held by one process."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

import pytest

from branchnets.engine import config as c
from branchnets.engine.records.environment import commit, describe
from branchnets.engine.records.rundir import RunDir
from branchnets.errors import RunDirError


def make_config(**fields):
    config = c.base("coded")
    config.coded.schemes = ("a", "b")
    config.model.name = "net"
    return c.apply_overrides(config, fields)


def contents(directory):
    return {
        p.relative_to(directory).as_posix(): p.read_bytes()
        for p in directory.rglob("*")
        if p.is_file() and p.name != ".lock"
    }


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs" / "x"


def start(path, config=None, **kwargs):
    with RunDir(path, **kwargs) as run:
        return run.start(config or make_config(), {"total_steps": 5}, {"python": "3"})


def test_a_run_is_created_and_taken_up_again(path):
    assert not RunDir(path).exists
    assert start(path) is False
    assert set(contents(path)) == {"config.json", "environment.json"}
    text = (path / "config.json").read_text()
    document = json.loads(text)
    assert document["resolved"] == {"total_steps": 5}
    saved = document["raw"]["coded"]
    assert (saved["mu"], saved["schemes"]) == (6.0, ["a", "b"])
    assert text == json.dumps(document, indent=2, sort_keys=True) + "\n"
    before = contents(path)
    assert start(path) is True
    after = contents(path)
    assert set(after) - set(before) == {"environment-2.json"}
    assert all(after[name] == data for name, data in before.items())


def test_another_config_is_refused_and_nothing_changes(path):
    start(path)
    (path / "metrics.jsonl").write_text("{}\n")
    before = contents(path)
    other = make_config(**{"optimizer.momentum": 0.5, "seed": 1, "log.every_steps": 1})
    for write in (True, False):
        with pytest.raises(RunDirError) as error:
            start(path, other, write=write)
        message = str(error.value)
        assert "optimizer.momentum: 0.9 in the run, 0.5 given" in message
        assert "seed: 0 in the run, 1 given" in message
        assert "log.every_steps" not in message
        assert "--mode=eval" in message and "--workdir" in message
    assert contents(path) == before


def test_what_does_not_change_the_result_may_differ(path):
    start(path)
    assert (
        start(
            path,
            make_config(
                **{"log.every_steps": 1, "checkpoint.keep_best": 3, "data.on_error": "skip"}
            ),
        )
        is True
    )


def test_the_config_of_a_run_comes_back(path):
    config = make_config(bn_group_size=64)
    start(path, config)
    assert c.diff(config, RunDir(path).config()) == []


def test_a_place_without_a_run_says_so(path):
    with pytest.raises(RunDirError, match="is no run directory"):
        RunDir(path).config()
    start(path)
    (path / "config.json").write_text('{"raw": ')
    with pytest.raises(RunDirError, match="config.json cannot be read"):
        RunDir(path).config()
    with pytest.raises(RunDirError, match="config.json cannot be read"):
        start(path)
    assert (path / "config.json").read_text() == '{"raw": '


def test_a_directory_with_other_things_is_refused(path):
    path.mkdir(parents=True)
    (path / "thesis.tex").write_text("")
    with pytest.raises(RunDirError, match="not empty and holds no run: thesis.tex"):
        start(path)
    assert set(contents(path)) == {"thesis.tex"}


def test_a_crash_before_the_config_was_written_is_no_obstacle(path):
    path.mkdir(parents=True)
    (path / ".lock").write_text("")
    (path / ".config.json.abc").write_text("{")
    assert start(path) is False


def test_places_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirError, match="is a file"):
        RunDir(tmp_path / "file")
    with pytest.raises(RunDirError, match="cannot be written: Not a directory"):
        start(tmp_path / "file" / "x")
    with pytest.raises(RunDirError, match="is a URL"):
        RunDir("memory://x")


@pytest.fixture
def public():
    """A directory that everybody may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        directory.chmod(0o755)
        yield directory
        for folder in directory.iterdir():
            folder.chmod(0o755)


@contextlib.contextmanager
def no_superuser():
    """Root may do anything, so be somebody else for a while."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_directory_that_cannot_be_written(public):
    run, fresh = public / "run", public / "fresh"
    start(run)
    fresh.mkdir()
    fresh.chmod(0o555)
    run.chmod(0o555)
    (run / ".lock").chmod(0o444)
    before = contents(run)
    with no_superuser():
        for path in (run, fresh, fresh / "below"):
            with pytest.raises(RunDirError, match="cannot be written: Permission denied"):
                start(path)
        assert RunDir(run).config().model.name == "net"
    assert contents(run) == before and contents(fresh) == {}


def test_a_directory_that_cannot_be_read(public):
    (public / "closed").mkdir(0o000)
    with no_superuser(), pytest.raises(RunDirError, match="cannot be read: Permission denied"):
        RunDir(public / "closed")


def test_a_second_run_in_the_same_directory_is_refused(path):
    with RunDir(path) as first:
        first.start(make_config(), {})
        before = contents(path)
        with pytest.raises(RunDirError, match=f"is in use by process {os.getpid()} on "):
            start(path)
        assert contents(path) == before
        assert RunDir(path).config().model.name == "net"  # reading is allowed
    assert start(path) is True


HOLD = """
import sys, time
from branchnets.engine import config as c
from branchnets.engine.records.rundir import RunDir
run = RunDir(sys.argv[1])
run.start(c.base(), {})
print("held", flush=True)
time.sleep(60)
"""


def test_the_lock_ends_with_a_killed_process(path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))},
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunDirError, match=f"in use by process {holder.pid} on"):
            RunDir(path).start(c.base(), {})
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    with RunDir(path) as run:
        assert run.start(c.base(), {}) is True


def test_a_process_that_does_not_write_leaves_no_trace(path):
    with RunDir(path, write=False) as run:
        assert run.start(make_config(), {}, {"python": "3"}) is False
        run.write_json("summary.json", {"a": 1})
    assert not path.exists()


def test_json_is_written_whole_or_not_at_all(path):
    start(path)
    with RunDir(path) as run:
        run.write_json("summary.json", {"b": 1, "a": 2})
        with pytest.raises(TypeError):
            run.write_json("summary.json", {"b": object()})
    assert json.loads((path / "summary.json").read_text()) == {"a": 2, "b": 1}
    assert not [p for p in path.iterdir() if p.name.startswith(".summary")]


# The environment


def git(folder, *arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)


def test_the_commit_is_that_of_the_file_only(tmp_path):
    file = tmp_path / "package" / "__init__.py"
    file.parent.mkdir()
    file.write_text("")
    git(tmp_path, "init", "-q")
    assert commit(file)["commit"] is None or "dirty" not in commit(file)  # not of this checkout
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    found = commit(file)
    assert len(found["commit"]) == 40 and found["dirty"] is False
    file.write_text("x = 1\n")
    assert commit(file) == {"commit": found["commit"], "dirty": True}


def test_the_environment_is_described():
    found = describe(["main", "--config=x"])
    assert json.loads(json.dumps(found)) == found
    assert found["command"] == ["main", "--config=x"]
    assert {"jax", "flax", "orbax-checkpoint"} <= found["versions"].keys()
    assert found["devices"]["count"] == 8 and found["devices"]["backend"] == "cpu"

"""Run directories on an object store: a stand-in for Google Cloud Storage, and real clients."""

from __future__ import annotations

import contextlib
import json
import uuid

import jax.numpy as jnp
import pytest
from gcs_server import Refusal

from branchnets import storage
from branchnets.engine import config as configs
from branchnets.engine.records import mirror
from branchnets.engine.records.logging import MetricWriter, read_metrics
from branchnets.engine.records.rundir import RunDir
from branchnets.engine.saving import filelist
from branchnets.engine.saving.checkpoint import Checkpoints
from branchnets.errors import CheckpointError, RunDirError, SaveError, StorageError


@pytest.fixture
def name():
    """Of a run directory, inside the bucket."""
    return f"runs/{uuid.uuid4().hex}"


@pytest.fixture
def place(gcs, name):
    return storage.as_path(f"gs://bucket/{name}")


def steps(number):
    return {"params": {"kernel": jnp.full((300, 3), number)}}


def saved(place, **options):
    return Checkpoints(place / "checkpoints", asynchronous=False, **options)


def restored(place, messages=None, **options):
    """(value, step) of what a new process would go on from."""
    report = (lambda text: None) if messages is None else messages.append
    with Checkpoints(place / "checkpoints", report=report, **options) as checkpoints:
        state, step = checkpoints.restore(steps(0.0))
    return float(state["params"]["kernel"][0, 0]), step


# The directory


def started(place):
    run = RunDir(str(place))
    resumed = run.start(configs.base("coded"), {"total_steps": 5}, {"python": "3"})
    return run, resumed


def test_a_run_is_created_and_taken_up_again(place):
    run, resumed = started(place)
    assert not resumed and not configs.diff(run.config(), configs.base("coded"))
    run.close()
    assert [p.name for p in sorted(place.iterdir())] == ["config.json", "environment.json"]
    run, resumed = started(f"{place}/")
    run.close()
    assert resumed and run.read_json("environment-2.json") == {"python": "3"}
    assert len(run.sources()) == 2


def test_the_run_that_was_started_last_has_the_directory(place, capsys):
    first, _ = started(place)
    assert "not closed" not in capsys.readouterr().err
    with MetricWriter(place, check=first.check_held) as writer:
        writer.write(1, {"loss": 1.0})
        writer.flush()
        second, resumed = started(place)
        assert resumed and "was not closed by process" in capsys.readouterr().err
        writer.write(2, {"loss": 1.0})
        with pytest.raises(RunDirError, match="was taken over by process .* of its own"):
            writer.flush()
        with saved(place, check=second.check_held) as checkpoints:
            checkpoints.save(1, steps(1.0))
    assert [line["step"] for line in read_metrics(place / "metrics.jsonl")] == [1]
    third, _ = started(place)
    with saved(place, check=second.check_held) as checkpoints:
        with pytest.raises(RunDirError, match="was taken over"):
            checkpoints.save(2, steps(2.0))
        assert checkpoints.all_steps() == [1]
    second.close()
    assert (place / ".lock").exists()  # that of the third
    third.close()
    assert not (place / ".lock").exists()
    with pytest.raises(RunDirError, match="was taken over by another run"):
        first.write_json("summary.json", {})  # also when those that came have ended


def test_a_save_does_not_count_once_another_run_has_taken_over(place, gcs):
    first, _ = started(place)
    taken = []

    def take_over(method, name):
        if not taken and name.endswith("manifest.ocdbt") and method in ("POST", "UPLOAD"):
            taken.append(started(place)[0])

    gcs.before = take_over
    with pytest.raises(RunDirError, match="^gs://.* was taken over by process"):
        saved(place, check=first.check_held).save(1, steps(1.0))
    assert taken and saved(place, read_only=True).all_steps() == []


def test_a_run_is_not_taken_back_from_another(place):
    first, _ = started(place)
    second, _ = started(place)
    with pytest.raises(RunDirError, match="was taken over"):
        first.withdraw()
    assert second.exists


def test_what_the_service_refuses_is_an_error_and_never_a_new_run(place, gcs):
    run, _ = started(place)
    run.close()

    def refuse(method, name):
        raise Refusal(403)

    gcs.before = refuse
    told = r"gs://bucket/[\w/]* cannot be read: Forbidden.*objectAdmin and .*legacyBucketReader"
    with pytest.raises(RunDirError, match=told):
        RunDir(place)


def test_a_bucket_that_is_not_there_is_told_from_a_run_that_is_not(gcs):
    with pytest.raises(RunDirError, match="read: the bucket other does not exist .gcloud storage"):
        RunDir("gs://other/run")


def test_an_account_that_may_not_see_the_bucket_is_told_what_it_needs(place, gcs):
    def refuse(method, name):
        if name == "/":
            raise Refusal(403)

    gcs.before = refuse
    with pytest.raises(CheckpointError, match="the bucket bucket cannot be .*legacyBucketReader"):
        saved(place).check_bucket()

    def fail(method, name):
        raise Refusal(400)

    gcs.before = fail  # which is no matter of permissions
    with pytest.raises(CheckpointError, match="the bucket bucket cannot be") as caught:
        saved(place).check_bucket()
    assert "legacyBucketReader" not in str(caught.value)
    gcs.before = lambda method, name: None
    with pytest.raises(CheckpointError, match="the bucket other does not exist"):
        Checkpoints("gs://other/run/checkpoints").check_bucket()


@pytest.mark.parametrize("failing", ["default/_METADATA", "default/manifest.ocdbt"])
def test_what_orbax_stumbles_over_is_an_error_of_the_checkpoint(place, gcs, failing):
    with saved(place) as checkpoints:
        checkpoints.save(1, steps(1.0))

    def refuse(method, name):
        if method == "GET" and name.endswith(f"/1/{failing}"):
            raise Refusal(403)

    gcs.before = refuse
    with pytest.raises(CheckpointError, match=r"checkpoints/1 cannot be read: "):
        restored(place)


def test_what_is_not_installed_is_named(place, monkeypatch):
    import fsspec.core

    def url_to_fs(*arguments, **options):
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(fsspec.core, "url_to_fs", url_to_fs)
    with pytest.raises(RunDirError, match=r"Please install gcsfs .*branchnets\[gcs\]"):
        RunDir(place)


# Metrics


def test_lines_and_events_are_uploaded_when_it_is_time(place, gcs, monkeypatch):
    run, _ = started(place)
    with run, MetricWriter(place, check=run.check_held) as writer:
        writer.write(1, {"loss": 0.5})
        assert not read_metrics(place / "metrics.jsonl")
        monkeypatch.setattr(mirror, "EVERY", -1.0)
        writer.write(2, {"loss": 0.25})
        assert len(read_metrics(place / "metrics.jsonl")) == 2

        def refuse(method, name):
            raise Refusal(403)

        gcs.before = refuse  # for a while: made up for later
        writer.write(3, {"loss": 0.25})
        with pytest.raises(SaveError, match="Forbidden"):
            writer.flush()
        gcs.before = lambda method, name: None
        writer.write(4, {"loss": 0.25})
    assert [line["step"] for line in read_metrics(place / "metrics.jsonl")] == [1, 2, 3, 4]
    (events,) = place.glob("events.*")
    assert events.size() > 200
    with MetricWriter(place, start_step=2) as writer:
        assert len(read_metrics(place / "metrics.jsonl")) == 2
        writer.write(3, {"loss": 1.0})
    assert [line["step"] for line in read_metrics(place / "metrics.jsonl")] == [1, 2, 3]


# Checkpoints


def test_the_newest_and_the_best_are_kept(place):
    with saved(place, best_metric="accuracy") as checkpoints:
        for step, accuracy in ((1, 0.5), (2, 0.9), (3, 0.7), (4, 0.6)):
            checkpoints.save(step, steps(float(step)), {"accuracy": accuracy})
        assert checkpoints.all_steps() == [2, 4] and checkpoints.best_step() == 2
    assert restored(place) == (4.0, 4)


def test_a_save_that_was_cut_short_is_no_step(place, gcs, name):
    """As SIGKILL leaves it: the file that orbax writes last is not there."""
    with saved(place, keep_latest=2) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, steps(float(step)))
    for file in ("commit_success.txt", "files.json"):
        (place / "checkpoints/2" / file).unlink()
    messages = []
    assert restored(place, messages) == (1.0, 1) and not messages
    with saved(place) as checkpoints:
        assert checkpoints.all_steps() == [1]
        checkpoints.save(2, steps(3.0))
    assert restored(place) == (3.0, 2)


def test_a_damaged_step_is_set_aside(place, gcs, name):
    with saved(place, keep_latest=3) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, steps(float(step)))
    before = len(gcs.requests)
    assert restored(place, read_only=True) == (3.0, 3)
    read = [n for method, n in gcs.requests[before:] if method == "GET" and "/d/" in n]
    assert len(read) <= len(set(read)) + 2  # checked by what the service knows: read once, to use
    whole = gcs.names(f"{name}/checkpoints/3/")
    data = next(n for n in whole if "/ocdbt.process_0/d/" in n)
    gcs.put(data, bytes(len(gcs.blobs[data].data)))
    del gcs.blobs[f"{name}/checkpoints/2/default/_METADATA"]
    messages = []
    assert restored(place, messages, read_only=True) == (1.0, 1)
    assert "has other contents" in messages[0] and "_METADATA is missing" in messages[1]
    assert gcs.names(f"{name}/checkpoints/damaged") == []
    assert restored(place) == (1.0, 1)
    folders = sorted(p.name for p in (place / "checkpoints").iterdir())
    assert folders == ["1", "damaged-2", "damaged-3"]
    assert len(gcs.names(f"{name}/checkpoints/damaged-3/")) == len(whole)


def test_a_service_that_fails_damages_nothing(place, gcs, name):
    with saved(place) as checkpoints:
        checkpoints.save(1, steps(1.0))

    def refuse(method, asked):
        if asked.endswith("files.json"):
            raise Refusal(403)

    gcs.before = refuse
    with pytest.raises(CheckpointError, match="cannot be read"):
        restored(place)
    gcs.before = lambda method, name: None
    assert restored(place) == (1.0, 1)


def test_metrics_that_cannot_be_read_are_not_taken_for_absent(place, gcs):
    run = RunDir(str(place), write=False)
    with saved(place, keep_latest=2) as checkpoints:
        checkpoints.save(1, steps(1.0), {"accuracy": 0.5})
        checkpoints.save(2, steps(2.0))
        assert checkpoints.metrics(1) == {"accuracy": 0.5} and checkpoints.metrics(2) is None

        def refuse(method, name):
            if name.endswith(("metrics/metrics", ".json")):
                raise Refusal(403)

        gcs.before = refuse
        with pytest.raises(CheckpointError, match="cannot be read"):
            checkpoints.metrics(1)
        with pytest.raises(StorageError, match="cannot be read"):
            run.read_json("summary.json")


def test_a_step_is_exchanged_and_never_lost(place, gcs):
    """Refused from some request on, as if killed there: a later start has the old or the new."""
    with saved(place) as checkpoints:
        checkpoints.save(4, steps(1.0))
    found = []
    for allowed in range(5, 400, 13):
        asked = []

        def cut(method, name, allowed=allowed, asked=asked):
            if method in ("POST", "DELETE") and "/checkpoints/" in name:
                asked.append(name)
                if len(asked) > allowed:
                    raise Refusal(403)

        gcs.before = cut
        with contextlib.suppress(CheckpointError):
            saved(place).replace(4, steps(2.0), {"accuracy": 0.5})
        gcs.before = lambda method, name: None
        value, step = restored(place, read_only=True)
        again = restored(place)  # which may put right
        assert step == again[1] == 4 and {value, again[0]} <= {1.0, 2.0}
        found.append(again[0])
        if len(asked) <= allowed:
            break
        with saved(place) as checkpoints:
            checkpoints.replace(4, steps(1.0))
    assert set(found) == {1.0, 2.0} and found[0] == 1.0 and found[-1] == 2.0
    assert [p.name for p in (place / "checkpoints").iterdir()] == ["4"]


def test_a_copy_on_a_disk_is_whole_too(place, tmp_path):
    """And the reverse: a folder is checked by the checksums it was listed with."""
    with saved(place) as checkpoints:
        checkpoints.save(1, steps(1.0))
    local = tmp_path / "run"
    for path, file in place.walk().items():
        (local / path).parent.mkdir(parents=True, exist_ok=True)
        (local / path).write_bytes(file.read_bytes())
    assert restored(local) == (1.0, 1)
    (damaged,) = [p for p in local.rglob("_sharding")]
    damaged.write_bytes(bytes(damaged.stat().st_size))
    with pytest.raises(CheckpointError, match="damaged-1"):
        restored(local)

    with saved(tmp_path / "other") as checkpoints:
        checkpoints.save(2, steps(2.0))
    back = place / "back"
    for file in (tmp_path / "other").rglob("*"):
        if file.is_file():
            (back / file.relative_to(tmp_path / "other").as_posix()).write_bytes(file.read_bytes())
    assert restored(back) == (2.0, 2)
    listed = json.loads((back / "checkpoints/2/files.json").read_text())
    assert all(isinstance(checksum, int) for _, checksum in listed.values())


def test_a_copy_from_a_disk_without_marks_is_a_run_that_goes_on(place, tmp_path):
    """Orbax marks what it writes in a bucket, and deletes there what has no mark."""
    with saved(tmp_path, keep_latest=2) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, steps(float(step)), {"accuracy": 0.5})
            for mark in (tmp_path / "checkpoints").rglob("commit_success.txt"):
                mark.unlink()  # as some versions of orbax write none on a disk
            filelist.write(tmp_path / "checkpoints" / str(step), leave_out="_CHECKPOINT_METADATA")
    for file in tmp_path.rglob("*"):
        if file.is_file():
            (place / file.relative_to(tmp_path).as_posix()).write_bytes(file.read_bytes())
    assert saved(place, read_only=True).all_steps() == [1, 2]
    assert restored(place, read_only=True) == (2.0, 2)
    (place / "checkpoints/2/default/_METADATA").unlink()  # a copy that is not whole
    assert saved(place, read_only=True).all_steps() == [1]
    with saved(place, keep_latest=3) as checkpoints:
        checkpoints.save(3, steps(3.0))
        assert checkpoints.all_steps() == [1, 3]
    (place / "checkpoints/3/files.json").unlink()
    assert restored(place) == (1.0, 1)

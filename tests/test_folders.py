"""Folders on disk: whole or not at all, strangers kept or refused, one writer at a time."""

import fcntl
import multiprocessing
import os
import time

import pytest
from gcs_server import Refusal

from branchnets import folders
from branchnets.errors import DeployError, ReportError
from branchnets.storage import as_path


def _ours(place):
    """The names that a file called "list" has in it."""
    try:
        return {"list", *(place / "list").read_text().split()}
    except OSError:
        return None


KEEPS = folders.Kind("album", ReportError, _ours, keep=True)
REFUSES = folders.Kind("album", DeployError, _ours)


def _files(*names, text="new"):
    return {**{name: text.encode() for name in names}, "list": " ".join(names).encode()}


def _contents(place):
    return {path.name: path.read_text() for path in place.iterdir()}


def test_an_older_folder_is_replaced(tmp_path):
    place = tmp_path / "deep" / "album"
    folders.write(place, _files("a", "b"), REFUSES)
    assert folders.write(place, _files("b", "c"), REFUSES) == place
    assert _contents(place) == {"list": "b c", "b": "new", "c": "new"}
    assert os.listdir(place.parent) == ["album"]
    (tmp_path / "empty").mkdir()
    assert len(_contents(folders.write(tmp_path / "empty", _files("a"), REFUSES))) == 2


def test_files_of_others_are_kept_under_another_name_if_need_be(tmp_path):
    place = folders.write(tmp_path / "album", _files("a"), KEEPS)
    for name in ("b", "b.old", "notes"):
        (place / name).write_text(f"my {name}")
    (place / "more").mkdir()
    folders.write(place, _files("a", "b"), KEEPS)
    assert sorted(os.listdir(place)) == ["a", "b", "b.old", "b.old2", "list", "more", "notes"]
    assert [(place / n).read_text() for n in ("b.old", "b.old2")] == ["my b.old", "my b"]
    assert (place / "b").read_text() == "new" and (place / "notes").read_text() == "my notes"


def test_files_of_others_are_refused(tmp_path):
    place = folders.write(tmp_path / "album", _files("a"), REFUSES)
    (place / "notes").write_text("mine")
    with pytest.raises(DeployError, match="holds notes, which is not of the album.*left alone"):
        folders.check(place, REFUSES)
    assert folders.check(place, KEEPS) == place
    for kind in (KEEPS, REFUSES):
        with pytest.raises(kind.error, match="is not empty and holds no album"):
            folders.write(tmp_path, _files("a"), kind)
    assert os.listdir(tmp_path) == ["album"] and "notes" in os.listdir(place)


def test_a_folder_that_cannot_be_written_is_told_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DeployError, match="is a file; choose another --out"):
        folders.check(tmp_path / "file", REFUSES)
    for place in (tmp_path / "file" / "album", "/proc/album"):
        with pytest.raises(DeployError, match="cannot be written"):
            folders.check(place, REFUSES)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_folder_without_permission_is_told_before_the_work(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(DeployError, match="Permission denied"):
            folders.check(tmp_path / "album", REFUSES)
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("failing", [1, 2])
def test_a_failure_leaves_the_older_folder_and_nothing_else(tmp_path, monkeypatch, failing):
    place = folders.write(tmp_path / "album", _files("a", text="old"), KEEPS)
    (place / "notes").write_text("mine")
    before, rename, calls = _contents(place), os.rename, []

    def fails(source, target):
        calls.append(source)
        if len(calls) == failing:
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(folders.os, "rename", fails)
    with pytest.raises(ReportError, match="cannot be written: No space left"):
        folders.write(place, _files("a"), KEEPS)
    assert _contents(place) == before and os.listdir(tmp_path) == ["album"]


def test_a_file_of_others_that_cannot_be_moved_is_not_lost(tmp_path, monkeypatch):
    place = folders.write(tmp_path / "album", _files("a"), KEEPS)
    (place / "notes").write_text("mine")
    rename = os.rename

    def fails(source, target):
        if os.path.basename(source) == "notes":
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(folders.os, "rename", fails)
    with pytest.raises(ReportError, match="is written, but notes.*It is whole in") as error:
        folders.write(place, _files("b"), KEEPS)
    (kept,) = set(os.listdir(tmp_path)) - {"album"}
    assert kept in str(error.value) and (tmp_path / kept / "notes").read_text() == "mine"
    assert set(_contents(place)) == {"list", "b"}


def test_a_link_to_a_folder_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    folders.write(tmp_path / "link", _files("a"), REFUSES)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "a").exists()


def test_a_new_folder_has_the_permissions_of_an_ordinary_one(tmp_path):
    (tmp_path / "ordinary").mkdir()
    place = folders.write(tmp_path / "album", _files("a"), KEEPS)
    assert place.stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def _write_often(place, text, count):
    for _ in range(count):
        folders.write(place, _files("a", "b", text=text), KEEPS)


def test_processes_that_write_at_once_all_succeed(tmp_path):
    place = tmp_path / "album"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_often, args=(place, str(i), 100)) for i in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    found = _contents(place)
    assert set(found) == {"list", "a", "b"} and found["a"] == found["b"]
    assert os.listdir(tmp_path) == ["album"]


def test_a_lock_is_waited_for_and_then_done_without(tmp_path):
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    started = time.monotonic()
    with folders.alone(tmp_path, seconds=0.1):
        assert time.monotonic() - started >= 0.1
    os.close(handle)
    with folders.alone(tmp_path), pytest.raises(BlockingIOError):
        other = os.open(tmp_path, os.O_RDONLY)
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(other)


def test_folders_in_a_bucket(gcs):
    place = as_path("gs://bucket/folders/album")
    folders.write(place, _files("a", "b"), REFUSES)
    assert folders.write(str(place), _files("b", "c"), REFUSES) == place
    assert _contents(place) == {"list": "b c", "b": "new", "c": "new"}
    (place / "mine").write_text("mine")
    (place / "d").write_text("old")
    for write in (folders.check, lambda *a: folders.write(a[0], _files("b"), a[1])):
        with pytest.raises(DeployError, match="holds d, which is not of the album"):
            write(place, REFUSES)
    written = []

    def look(method, name):
        if method == "UPLOAD":
            written.append(name.rpartition("/")[2])

    gcs.before = look
    folders.write(place, _files("c", "d", text="newer"), KEEPS)
    expected = {"list": "c d", "c": "newer", "d": "newer", "d.old": "old", "mine": "mine"}
    assert _contents(place) == expected
    assert written == ["c", "d", "list"]  # the record comes last

    def refuse_one(method, name):
        if method == "UPLOAD" and name.endswith("/d"):
            raise Refusal(403)

    gcs.before = refuse_one
    with pytest.raises(ReportError, match="holds 1 of 3 new files among older ones"):
        folders.write(place, _files("c", "d", text="newest"), KEEPS)
    assert _contents(place) == {**expected, "c": "newest"}
    gcs.before = lambda method, name: None
    (place.parent / "file").write_text("")
    with pytest.raises(ReportError, match="file is a file"):
        folders.check(place.parent / "file", KEEPS)

    def refuse(method, name):
        if method == "POST":  # who may only read is told so before the work
            raise Refusal(403)

    before = gcs.names()
    folders.check(place, KEEPS)
    assert gcs.names() == before
    gcs.before = refuse
    with pytest.raises(ReportError, match="gs://bucket/folders/album cannot be written: Forbidden"):
        folders.check(place, KEEPS)

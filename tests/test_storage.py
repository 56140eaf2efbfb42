"""Paths behind URLs, on a stand-in for Google Cloud Storage: real requests to real clients."""

from __future__ import annotations

import pickle
import time
import uuid

import pytest
from gcs_server import Refusal

from branchnets import service, storage
from branchnets.errors import ConfigError, DataError, StorageError


@pytest.fixture
def place(gcs):
    return storage.as_path(f"gs://bucket/{uuid.uuid4().hex}/")


def test_files_and_folders(place):
    assert not place.exists() and not place.is_dir() and list(place.iterdir()) == []
    for name in ("a.txt", "in/b.txt", "in/deep/c.txt"):
        (place / name).write_text(name)
    assert (place / "a.txt").read_text() == "a.txt" and (place / "a.txt").is_file()
    assert place.is_dir() and (place / "in").is_dir() and not (place / "in").is_file()
    assert [(p.name, p.is_dir()) for p in sorted(place.iterdir())] == [
        ("a.txt", False),
        ("in", True),
    ]
    assert sorted(place.walk()) == ["a.txt", "in/b.txt", "in/deep/c.txt"]
    assert (place / "in" / "b.txt").parent == place / "in"
    (place / "a.txt").unlink()
    (place / "a.txt").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError, match="a.txt"):
        (place / "a.txt").read_text()
    with pytest.raises(FileNotFoundError):
        (place / "a.txt").unlink()
    assert (place / "in/b.txt").read(1, 3) == b"n/b"


def test_a_listing_saves_questions(place, gcs):
    for number in range(5):
        (place / f"class{number}/x").write_text("")
    before = len(gcs.requests)
    assert all(folder.is_dir() for folder in place.iterdir())
    assert len(gcs.requests) == before + 1


def test_a_version_is_that_of_the_contents(place):
    file = place / "x"
    file.write_text("one")
    (listed,) = place.iterdir()
    first = file.version()
    assert listed.version() == first == pickle.loads(pickle.dumps(listed)).version()
    file.write_text("two")
    assert file.version() != first


def test_moved_folders_are_never_whole_by_halves(place, gcs):
    """At every request, the mark is only where everything else is."""
    names = {"data/1", "data/2", "done"}
    for name in names:
        (place / "old" / name).write_text(name)
    seen = []

    def look(method, name):
        for folder in ("old", "new"):
            found = {n.partition(f"/{folder}/")[2] for n in gcs.names() if f"/{folder}/" in n}
            assert "done" not in found or found == names, (folder, found)
            seen.append(found)

    gcs.before = look
    storage.move_folder(place / "old", place / "new", "done")
    gcs.before = lambda method, name: None
    assert set((place / "new").walk()) == names and not (place / "old").exists()
    assert len(seen) > 10
    storage.remove_folder(place / "new")
    assert not place.exists()


def test_what_fails_says_so_and_is_not_taken_for_absence(place, gcs):
    (place / "x").write_text("")

    def refuse(method, name):
        raise Refusal(403)

    gcs.before = refuse
    with pytest.raises(StorageError, match="gs://bucket/.*x cannot be read") as caught:
        (place / "x").exists()
    assert isinstance(caught.value, OSError) and isinstance(caught.value, DataError)
    assert caught.value.strerror.startswith("Forbidden")
    with pytest.raises(StorageError, match="cannot be written"):
        (place / "y").write_text("")


def test_a_bucket_that_does_not_exist_is_an_error(place):
    other = storage.as_path("gs://other/x")
    for ask in (other.exists, other.is_dir, other.read_bytes, lambda: other.write_text("")):
        with pytest.raises(StorageError, match="gs://other/x .*the bucket other does not exist"):
            ask()
    assert not place.exists()


def test_what_is_waited_for_is_said(place, gcs, monkeypatch, capsys):
    """Of a bucket that has not answered yet, and of no other."""
    monkeypatch.setattr(service, "PATIENCE", 0.05)
    gcs.before = lambda method, name: time.sleep(0.3)
    monkeypatch.setattr(service, "_answered", set())
    assert not place.exists()
    assert capsys.readouterr().err.startswith("waiting for gs://bucket, which has not answered")
    assert not place.exists() and not capsys.readouterr().err


def test_advice_goes_with_what_failed():
    forbidden = OSError("Forbidden: https://h/b/o/img401.png\nme@x does not have objects.get.")
    told = service.reason(forbidden, "gs")
    assert "img401.png: me@x does not have objects.get. The account needs roles/" in told
    assert "gcloud auth" not in told and "gcloud auth" in service.reason(OSError("401"), "gs")
    assert "roles" not in service.reason(forbidden, "s3")


def test_a_folder_in_one_of_the_same_name_is_listed():
    place = storage.as_path(f"memory://{uuid.uuid4().hex}/train")
    for name in ("train", "cat"):
        (place / name / "1.jpg").write_text("")
    assert sorted(p.name for p in place.iterdir()) == ["cat", "train"]


@pytest.mark.parametrize("text", ["gs://", "gs:///run", "gs:/bucket/run"])
def test_a_url_that_names_no_bucket_is_refused(text):
    with pytest.raises(ConfigError, match=f"{text} .*gs://BUCKET"):
        storage.as_path(text)

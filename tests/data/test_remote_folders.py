"""Images in folders, in lists and alone on a stand-in for Google Cloud Storage: as on a disk."""

from __future__ import annotations

import io
import pickle
import uuid
from types import SimpleNamespace

import numpy as np
import pytest
import tfds_fixture
from gcs_server import Refusal
from jpeg_tree import write_tree
from PIL import Image

from branchnets import data, storage
from branchnets.data.images import list_images, read_image
from branchnets.data.outside import load_outside
from branchnets.data.stored import array_records
from branchnets.data.stored.array_records import ArrayRecordFile
from branchnets.data.stored.records import FileRecords
from branchnets.data.stored.tfds import TfdsRecords
from branchnets.errors import DataError, ExampleError


@pytest.fixture
def both(tmp_path, gcs):
    """A folder with two classes on a disk and in the bucket: (path, URL, what uploads it)."""
    write_tree(tmp_path / "train", ("cat", "dog"), 4)
    write_tree(tmp_path / "val", ("cat", "dog"), 2, seed=50)
    (tmp_path / "train" / "dog" / ".hidden.jpg").write_text("")
    (tmp_path / "train" / "dog" / "notes.txt").write_text("")
    name = uuid.uuid4().hex

    def upload():
        for file in tmp_path.rglob("*"):
            if file.is_file():
                path = f"{name}/{file.relative_to(tmp_path).as_posix()}"
                gcs.put(path, file.read_bytes())

    upload()
    return tmp_path, f"gs://bucket/{name}", upload


def load(root, **fields):
    return data.load(SimpleNamespace(name="folder", data_dir=str(root), **fields))


def assert_same(one, other, streamed):
    assert one.class_names == other.class_names and set(one.splits) == set(other.splits)
    for name in one.splits:
        a, b = one.split(name), other.split(name)
        assert len(a.labels) and (a.labels == b.labels).all()
        if streamed:
            assert a.records.identity() == b.records.identity()
            assert [a[i].data for i in range(len(a))] == [b[i].data for i in range(len(b))]
        else:
            np.testing.assert_array_equal(a.images, b.images)


def test_class_folders_are_those_of_the_disk(both, gcs):
    root, url, upload = both
    assert_same(load(root, image_size=16), load(url, image_size=16), False)
    found = load(url, image_size=16, stream=True)
    assert_same(load(root, image_size=16, stream=True), pickle.loads(pickle.dumps(found)), True)
    before = len(gcs.requests)
    load(url, image_size=16)
    read = {name for _, name in gcs.requests[before:] if name.endswith(".jpg")}
    assert len(read) == 1  # the first tells the channels; the pixels of all are in the cache
    first = root / "train" / "cat" / "0.jpg"
    first.write_bytes((root / "train" / "dog" / "1.jpg").read_bytes())
    upload()
    assert_same(load(root, image_size=16), load(url, image_size=16), False)


def test_a_published_set_is_looked_for_in_folders_too(both):
    _, url, _ = both
    with pytest.raises(DataError, match=rf"{url}/train lacks 1000 of the 1000 classes"):
        data.load(SimpleNamespace(name="imagenet2012", data_dir=url))


def test_lists_are_those_of_the_disk(both, gcs):
    root, url, upload = both
    for split, folder in (("train", "train"), ("test", "val")):
        names = [(f"{folder}/{name}/{i}.jpg", name) for i in range(2) for name in ("dog", "cat")]
        lines = [f"{path},{name}" for path, name in names]
        lines[0] = lines[0].replace(folder, f"{root}/{folder}")  # an absolute path, or a URL
        (root / f"{split}.csv").write_text("\n".join(["path,label", *lines]))
    (root / "train").rename(root / "photos")  # a folder would go before the list
    (root / "train.csv").write_text((root / "train.csv").read_text().replace("train/", "photos/"))
    local = load(root, image_size=16)
    for split in ("train", "test"):
        text = (root / f"{split}.csv").read_text().replace(str(root), url)
        (root / f"{split}.csv").write_text(text)
    upload()
    lists = storage.as_path(f"{url}-lists")  # where no folder is beside them
    for file in root.rglob("*"):
        if file.is_file():
            (lists / file.relative_to(root).as_posix()).write_bytes(file.read_bytes())
    found = load(lists, image_size=16)
    assert len(local.split("train").labels) == 4
    assert found.class_names == local.class_names == ("cat", "dog")
    del gcs.blobs[f"{url.partition('bucket/')[2]}/photos/dog/0.jpg"]
    with pytest.raises(DataError, match="there is no file gs://.*/photos/dog/0.jpg"):
        load(lists, image_size=16)
    for name in ("train", "test"):
        np.testing.assert_array_equal(found.split(name).images, local.split(name).images)


def test_versions_are_asked_for_by_listings_of_the_folders_concerned(both, gcs):
    _, url, _ = both
    gcs.put(f"{url.partition('bucket/')[2]}/elsewhere/many/1.jpg", b"")
    paths = ["train/cat/0.jpg", "train/dog/1.jpg", "val/cat/0.jpg", f"{url}-b/c.jpg"]
    gcs.put(f"{url.partition('bucket/')[2]}-b/c.jpg", b"")
    records = FileRecords(url, paths, np.zeros(4))
    before = len(gcs.requests)
    files = records.files()
    assert [str(file) for file in files] == [f"{url}/{path}" for path in paths[:3]] + paths[3:]
    assert gcs.requests[before:].count(("GET", "")) <= 4  # of the root, two folders and a file
    before = len(gcs.requests)
    assert all(file.version() for file in files) and len(gcs.requests) == before


def test_shards_are_opened_as_a_listing_tells_of_them(tmp_path, gcs):
    shards = 12
    directory = tfds_fixture.write_dataset(tmp_path, "toy", {"train": [1] * shards})
    name = uuid.uuid4().hex
    for file in directory.iterdir():
        gcs.put(f"{name}/toy/3.0.2/{file.name}", file.read_bytes())
    url = f"gs://bucket/{name}/toy/3.0.2"
    before = len(gcs.requests)
    records = TfdsRecords(url, "train")
    asked = [asked for _, asked in gcs.requests[before:] if ".tfrecord-" in asked]
    assert len(asked) == shards  # each is read once, to find its records
    before = len(gcs.requests)
    again = TfdsRecords(url, "train")
    assert not [asked for _, asked in gcs.requests[before:] if ".tfrecord-" in asked]
    before = len(gcs.requests)
    assert len([file.version() for file in again.files()]) == shards
    assert len(gcs.requests) == before and again[3].data == records[3].data


def refuse_records(method, name):
    if ".array_record-" in name:
        raise Refusal(403)


def test_array_record_is_read_from_a_bucket(tmp_path, gcs):
    pytest.importorskip("array_record")
    splits = {"train": [3, 2]}
    local = tfds_fixture.write_dataset(tmp_path, "toy", splits, file_format="array_record")
    url = f"gs://bucket/{uuid.uuid4().hex}/toy/3.0.2"
    for file in local.iterdir():
        (storage.as_path(url) / file.name).write_bytes(file.read_bytes())
    ours, theirs = TfdsRecords(url, "train"), TfdsRecords(local, "train")
    assert ours.labels().tolist() == theirs.labels().tolist() and len(ours) == 5
    ours = pickle.loads(pickle.dumps(ours))
    assert [ours[i].data for i in range(5)] == [theirs[i].data for i in range(5)]

    array_records.forget()
    gcs.before = refuse_records
    with pytest.raises(DataError, match="0 records where .* says 3.*auth application-def") as error:
        TfdsRecords(url, "train")
    assert not isinstance(error.value, ExampleError)  # it may be the network, or a key
    gcs.before = lambda method, name: None
    assert TfdsRecords(url, "train")[0].data == theirs[0].data  # its readers are opened anew

    torn = next(file for file in storage.as_path(url).iterdir() if "00001-of" in file.name)
    torn.write_bytes(torn.read_bytes()[:-100])
    with pytest.raises(DataError, match="0 records where .* says 2.*pip install -U array_record"):
        TfdsRecords(url, "train")
    torn.unlink()
    with pytest.raises(DataError, match="is missing"):
        TfdsRecords(url, "train")
    with pytest.raises(DataError, match="from disks and gs:// only"):
        ArrayRecordFile(storage.as_path("memory://toy/toy.array_record-00000-of-00001"))


def test_images_alone_and_out_of_distribution(both):
    root, url, _ = both
    file = "val/cat/0.jpg"
    np.testing.assert_array_equal(
        read_image(f"{url}/{file}", (8, 8, 3)), read_image(root / file, (8, 8, 3))
    )
    with pytest.raises(DataError, match="there is no image gs://"):
        read_image(f"{url}/val/cat/9.jpg", (8, 8, 3))
    assert len(list_images(f"{url}/train")) == 8
    ours, notices = load_outside(f"{url}/train", (8, 8, 3))
    theirs, _ = load_outside(root / "train", (8, 8, 3))
    np.testing.assert_array_equal(ours.images, theirs.images)
    assert notices


def test_a_missing_image_is_one_of_the_examples_and_a_failing_service_is_not(both, gcs):
    _, url, _ = both
    train = load(url, image_size=16, stream=True).split("train")
    del gcs.blobs[f"{url.partition('bucket/')[2]}/train/cat/0.jpg"]
    with pytest.raises(ExampleError, match="train/cat/0.jpg cannot be read"):
        train[0]

    def refuse(method, name):
        raise Refusal(403)

    gcs.before = refuse
    with pytest.raises(DataError, match="Forbidden") as caught:
        train[1]
    assert not isinstance(caught.value, ExampleError)
    gcs.before = lambda method, name: None
    assert Image.open(io.BytesIO(train[1].data)).size

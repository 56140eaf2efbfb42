"""Sets of tfds by name, as they are stored; from a disk, and from a URL."""

from __future__ import annotations

import io
import pickle
import uuid
from types import SimpleNamespace

import numpy as np
import pytest
import tfds_fixture as fixture
from PIL import Image

from branchnets import data
from branchnets.data.stored import example, remote, tfds, tfrecord
from branchnets.errors import DataError

CLASSES = ("ape", "bee", "cow")


def examples(count, seed=0, label=None, size=40):
    """JPEG images of many sizes, the class before and after other features."""
    random = np.random.RandomState(seed)
    made = []
    for i in range(count):
        shape = (random.randint(8, size), random.randint(8, size), 3)
        out = io.BytesIO()
        Image.fromarray(random.randint(0, 256, shape).astype(np.uint8)).save(out, "jpeg")
        image = out.getvalue()
        own = i % len(CLASSES) if label is None else label
        name = f"{seed}_{99 - i}.JPEG".encode()
        made.append({"image": image, "label": own, "file_name": name, "mask": image})
    return made


FEATURES = ("file_name", "image", "label", "mask")


def write(root, splits, **fields):
    return fixture.write_examples(root, "zoo", splits, CLASSES, FEATURES, **fields)


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_any_set_by_name(tmp_path, file_format):
    if file_format == "array_record":
        pytest.importorskip("array_record")
    train, validation = examples(9), examples(4, 1)
    unlabelled = (1 << 64) - 1  # -1, as tfds has it where labels are not public
    splits = {
        "train": [train[:5], [], train[5:]],
        "validation": [validation],
        "test": [examples(2, 2, unlabelled)],
    }
    write(tmp_path, splits, file_format=file_format)
    cfg = SimpleNamespace(name="tfds/zoo", data_dir=str(tmp_path), image_size=16)
    assert data.spec(None, cfg).image_shape == (16, 16, 3) and data.streams(cfg)
    found = data.load(cfg)
    assert found.streamed and found.class_names == CLASSES
    assert {name: len(split) for name, split in found.splits.items()} == {"train": 9, "test": 4}
    part = pickle.loads(pickle.dumps(found.split("train")))
    assert [part[i].data for i in range(9)] == [e["image"] for e in train]
    assert [part[i].label for i in range(9)] == [e["label"] for e in train] == list(part.labels)
    assert part[7].name.endswith(f"zoo-train.{file_format}-00002-of-00003, record 2")
    held = data.load(SimpleNamespace(**vars(cfg), stream=False))
    assert held.split("train").images.shape == (9, 16, 16, 3)
    divided = data.load(SimpleNamespace(**vars(cfg), validation_size=3))
    np.testing.assert_array_equal(np.sort(divided.split("validation").labels), [0, 1, 2])


def test_labels_are_found_without_the_images(tmp_path, monkeypatch):
    """Long features are skipped: the last one has the bytes of a mask after it."""
    made = examples(20, size=400)
    long = [e for e in made if len(e["image"]) > tfrecord.SHORT]
    assert len(long) > 5
    directory = write(tmp_path, {"train": [long]})
    fetched = []
    original = remote.read_range
    monkeypatch.setattr(remote, "read_range", lambda *a: fetched.append(a[2]) or original(*a))
    records = tfds.TfdsRecords(directory, "train")
    # A read of half a kilobyte a record for the index.
    assert fetched == [tfrecord.LITTLE] * len(long)
    fetched.clear()
    np.testing.assert_array_equal(records.labels(), [e["label"] for e in long])
    assert len(fetched) <= 3 * len(long) and max(fetched) == tfrecord.LITTLE
    fetched.clear()
    again = tfds.TfdsRecords(directory, "train")
    np.testing.assert_array_equal(again.labels(), records.labels())
    assert again.values("file_name").tolist() == [e["file_name"] for e in long]
    assert len(fetched) <= len(long) + 1  # of the names alone
    fixture.write_examples(tmp_path, "imagenet2012", {"train": [long]}, CLASSES, FEATURES[:3])
    imagenet = tfds.TfdsRecords(tmp_path / "imagenet2012" / "5.1.0", "train")
    fetched.clear()
    np.testing.assert_array_equal(imagenet.labels(), records.labels())
    assert len(fetched) <= len(long) + 1  # the label is beside the next record's beginning


def test_splits_without_labels_are_not_even_opened(tmp_path):
    made = examples(3)
    directory = write(tmp_path, {"train": [made], "validation": [made[:2]], "test": [made[:1]]})
    for file in directory.glob("zoo-test*"):
        file.unlink()
    found = tfds.labelled_splits(directory, "label", ("test",))
    assert {name: len(records) for name, records in found.items()} == {"train": 3, "test": 2}


def test_one_feature_of_bytes_equals_all_of_them_parsed():
    record = fixture.example_bytes({"a": b"x" * 300, "long" * 40: 7, "b": 1 << 40, "c": b""})

    def read(start, length):
        return (b"__" + record)[start : start + length]

    parsed = example.parse_example(record)
    for name in ("a", "long" * 40, "b", "c"):
        assert example.first_value(read, 2, len(record), name, "it") == parsed[name][0]
    with pytest.raises(example.DamagedRecordError, match="it has no feature 'd'"):
        example.first_value(read, 2, len(record), "d", "it")
    for cut in range(len(record)):
        part = record[:cut]
        with pytest.raises(example.DamagedRecordError):
            example.first_value(lambda s, n, part=part: part[s : s + n], 0, cut, "d", "it")


@pytest.fixture
def url(tmp_path):
    """What lies in `tmp_path / "local"`, at a URL of fsspec's memory."""
    fsspec = pytest.importorskip("fsspec")
    place = f"memory://{uuid.uuid4().hex}"

    def upload():
        fsspec.filesystem("memory").put(str(tmp_path / "local") + "/", place, recursive=True)
        return place

    return upload


def test_records_from_a_url_are_those_of_the_disk(tmp_path, url, monkeypatch):
    made = examples(20)
    write(tmp_path / "local", {"train": [made[:12], made[12:]], "test": [made[:3]]})
    cfg = SimpleNamespace(name="tfds/zoo", data_dir=url(), image_size=16)
    found, local = (
        data.load(cfg),
        data.load(SimpleNamespace(**{**vars(cfg), "data_dir": str(tmp_path / "local")})),
    )
    train = pickle.loads(pickle.dumps(found.split("train")))
    ours = local.split("train")
    for i in range(20):
        assert (train[i].data, train[i].label) == (ours[i].data, ours[i].label)
    assert train[0].name.startswith("memory://")
    np.testing.assert_array_equal(train.labels, ours.labels)
    fetched = []
    original = remote.RemotePath.read
    monkeypatch.setattr(remote.RemotePath, "read", lambda *a: fetched.append(a) or original(*a))
    again = data.load(cfg)
    np.testing.assert_array_equal(again.split("train").labels, train.labels)
    assert len(fetched) == 1  # is the test split labelled? Places and labels are in the cache


def test_what_cannot_be_read_from_a_url_is_told(tmp_path, url):
    pytest.importorskip("array_record")
    write(tmp_path / "local", {"train": [examples(2)]}, file_format="array_record")
    cfg = SimpleNamespace(name="tfds/zoo", data_dir=url(), image_size=16)
    with pytest.raises(DataError, match="array_record format, which is read from disks and gs:"):
        data.load(cfg)
    cfg.name = "tfds/farm"
    with pytest.raises(tfds.DatasetNotFound, match=r"'farm' is not in memory://.*Prepare it once"):
        data.load(cfg)
    cfg.data_dir = "nothing://here"
    with pytest.raises(DataError, match="nothing://here/farm cannot be read: .*nothing"):
        data.load(cfg)
    cfg.name = "imagenet2012"
    cfg.data_dir = str(tmp_path)
    with pytest.raises(tfds.DatasetNotFound, match="Image files are read too"):
        data.load(cfg)


def test_sets_that_do_not_fit_are_told(tmp_path):
    write(tmp_path, {"train": [examples(3)], "test": [examples(1)]})
    cfg = SimpleNamespace(name="tfds/zoo", data_dir=str(tmp_path))
    with pytest.raises(DataError, match="of several sizes; set data.image_size"):
        data.load(cfg)
    cfg.image_size, cfg.label = 8, "file_name"
    with pytest.raises(DataError, match=r"'file_name' is no class label; those are \['label'\]"):
        data.load(cfg)
    cfg.label = "kind"
    with pytest.raises(DataError, match="no feature 'kind', only"):
        data.load(cfg)
    fixture.write_examples(tmp_path, "imagenet2012", {"train": [examples(3)]}, CLASSES)
    cfg = SimpleNamespace(name="imagenet2012", data_dir=str(tmp_path))
    with pytest.raises(DataError, match="3 classes, 'ape' and so on, which are not the 1000"):
        data.load(cfg)


def test_a_record_without_its_image_is_named(tmp_path):
    directory = write(tmp_path, {"train": [examples(3)]})
    path = next(directory.glob("*train*"))
    lacking = [fixture.example_bytes({"label": 1})] * 3
    fixture.write_records(path, lacking, "tfrecord")
    records = tfds.TfdsRecords(directory, "train")
    with pytest.raises(DataError, match="record 2 has no 'image' with a 'label'"):
        records[2]


@pytest.mark.parametrize("form", ["tfrecord", "array_record", "folders"])
def test_a_published_set_is_the_same_in_every_form(tmp_path, monkeypatch, form):
    from branchnets.data.sets.published import Published

    if form == "array_record":
        pytest.importorskip("array_record")
    made = {"train": examples(9), "validation": examples(5, 1)}
    zoo = Published("zoo", CLASSES, ("Ape", "Bee", "Cow"), 12, "train/ape/*.jpg and val/ape/*.jpg")
    if form == "folders":
        for split, name in (("train", "train"), ("validation", "val")):
            for e in made[split]:
                path = tmp_path / name / CLASSES[e["label"]] / e["file_name"].decode()
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(e["image"])
    else:
        write(tmp_path, {name: [part] for name, part in made.items()}, file_format=form)
    cfg = SimpleNamespace(data_dir=str(tmp_path))
    found = zoo.read(cfg)
    assert found.class_names == ("Ape", "Bee", "Cow") and found.image_shape == (12, 12, 3)
    for split, name in (("train", "train"), ("validation", "test")):
        part = found.split(name)
        want = sorted((e["label"], e["image"]) for e in made[split])
        assert sorted((part[i].label, part[i].data) for i in range(len(part))) == want
    held = zoo.read(SimpleNamespace(data_dir=str(tmp_path), stream=False))
    assert held.split("test").images.shape == (5, 12, 12, 3)


def test_the_directory_of_a_set_or_of_a_version_will_do(tmp_path):
    directory = write(tmp_path, {"train": [examples(1)]})
    newer = write(tmp_path, {"train": [examples(1)]}, version="10.0.0")
    assert tfds.find_dataset("zoo", tmp_path) == newer
    assert tfds.find_dataset("zoo", directory.parent) == newer
    assert tfds.find_dataset("zoo", directory) == directory


def test_descriptions_that_cannot_be_read_are_told(tmp_path):
    directory = write(tmp_path, {"train": [examples(1)]})
    features = directory / "features.json"
    features.write_text('{"type": "FeaturesDict", "content": {}}')
    with pytest.raises(DataError, match=r"of an old tfds. Write it anew.*write_to_directory"):
        tfds.TfdsRecords(directory, "train")
    features.write_text("{")
    with pytest.raises(DataError, match=r"features\.json is damaged"):
        tfds.TfdsRecords(directory, "train")


def test_cifar_from_folders(tmp_path):
    images = fixture.toy_images(20)
    for i, image in enumerate(images):
        name = data.spec(None, SimpleNamespace(name="cifar10")).class_names[i % 10]
        path = tmp_path / ("train" if i < 10 else "test") / name / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(fixture.png(image))
    cfg = SimpleNamespace(name="cifar10", data_dir=str(tmp_path))
    found = data.load(cfg)
    assert not found.streamed and found.spec == data.spec(None, cfg)
    np.testing.assert_array_equal(found.split("test").images, images[10:])
    assert data.load(SimpleNamespace(**vars(cfg), stream=True)).streamed
    with pytest.raises(DataError, match="digits is always held in memory"):
        data.load(SimpleNamespace(name="digits", stream=True))

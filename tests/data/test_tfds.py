"""The readers of tfds directories, on tiny datasets written here and, where it is, the real one."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tfds_fixture as fixture

from branchnets import data
from branchnets.data.sets import cifar
from branchnets.data.stored import array_records, cache, tfds, tfrecord

REAL = os.environ.get("TFDS_DATA_DIR")
needs_real = pytest.mark.skipif(
    not (REAL and (Path(REAL) / "cifar10").is_dir()), reason="TFDS_DATA_DIR has no cifar10"
)


@pytest.fixture(params=["tfrecord", "array_record"])
def file_format(request):
    if request.param == "array_record":
        pytest.importorskip("array_record")
    return request.param


def test_every_example_in_the_order_of_tfds(tmp_path, file_format):
    lengths = [20, 17, 5]
    directory = fixture.write_dataset(
        tmp_path, "cifar10", {"train": lengths, "test": [3]}, file_format=file_format
    )
    source = tfds.TfdsSource(directory, "train")
    images = fixture.toy_images(42)
    # 16 of each shard in turn, then what is left of each.
    order = [*range(16), *range(20, 36), *range(37, 42), *range(16, 20), 36]
    if file_format == "array_record":
        order = list(range(42))
    assert len(source) == 42
    for i, position in enumerate(order):
        example = source[i]
        np.testing.assert_array_equal(example["image"], images[position])
        assert example["label"] == position % 10
        assert example["id"] == f"train_{position}"
    split = tfds.read_split(directory, "train")
    np.testing.assert_array_equal(split.images, images[order])
    np.testing.assert_array_equal(split.labels, np.array(order) % 10)


def test_an_unshuffled_dataset_is_read_shard_by_shard(tmp_path):
    directory = fixture.write_dataset(tmp_path, "toy", {"train": [20, 20]}, disableShuffling=True)
    source = tfds.TfdsSource(directory, "train", ["id"])
    assert [source[i]["id"] for i in range(40)] == [f"train_{i}" for i in range(40)]


@pytest.mark.parametrize("lengths", [[], [0], [16], [16, 16, 1], [3] * 40, [100, 1, 0, 50]])
def test_interleave_visits_everything_once(lengths):
    order = tfds.interleave_order(lengths)
    np.testing.assert_array_equal(np.sort(order), np.arange(sum(lengths)))
    np.testing.assert_array_equal(tfds.interleave_order(lengths, cycle=1), np.arange(sum(lengths)))


def test_source_survives_pickling(tmp_path, file_format):
    directory = fixture.write_dataset(tmp_path, "toy", {"train": [4]}, file_format=file_format)
    source = tfds.TfdsSource(directory, "train")
    before = source[3]["image"]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source))[3]["image"], before)


def test_grey_images_have_one_channel(tmp_path):
    directory = fixture.write_dataset(tmp_path, "toy", {"train": [4]}, channels=1)
    images = fixture.toy_images(4, channels=1)
    np.testing.assert_array_equal(tfds.read_split(directory, "train").images, images)


def test_load_cifar100_fine_and_coarse(tmp_path, file_format):
    fixture.write_dataset(
        tmp_path,
        "cifar100",
        {"train": [30], "test": [21]},
        labels={"label": 100, "coarse_label": 20},
        file_format=file_format,
    )
    cfg = SimpleNamespace(name="cifar100", data_dir=str(tmp_path), label="coarse")
    coarse = data.load(cfg)
    assert coarse.num_classes == 20 and coarse.class_names[3] == "coarse_label 3"
    np.testing.assert_array_equal(coarse.split("train").labels, np.arange(30) % 20)
    for label in ("fine", "label", None):
        cfg.label = label
        fine = data.load(cfg)
        assert fine.num_classes == 100
        np.testing.assert_array_equal(fine.split("train").labels, np.arange(30))
        np.testing.assert_array_equal(fine.split("test").images, coarse.split("test").images)


def test_wrong_label_kind_is_refused():
    with pytest.raises(ValueError, match="data.label='coarse': cifar10 has 'label', 'fine'"):
        data.spec(None, SimpleNamespace(name="cifar10", label="coarse"))


def test_highest_complete_version_is_chosen(tmp_path):
    for version in ("3.0.2", "3.0.10", "2.9.9"):
        fixture.write_dataset(tmp_path, "toy", {"train": [1]}, version=version)
    (tmp_path / "toy" / "4.0.0").mkdir()  # incomplete
    (tmp_path / "toy" / "5.0.0.incompleteXYZ").mkdir()
    assert tfds.find_dataset("toy", tmp_path).name == "3.0.10"


def test_data_dir_is_config_then_environment_then_default(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "env"))
    assert tfds.resolve_data_dir(tmp_path)[0] == tmp_path
    assert tfds.resolve_data_dir(None)[0] == tmp_path / "env"
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert tfds.resolve_data_dir(None)[0] == Path.home() / "tensorflow_datasets"


def test_missing_dataset_says_how_to_prepare_it(tmp_path):
    with pytest.raises(tfds.DatasetNotFound) as error:
        data.load(SimpleNamespace(name="cifar10", data_dir=str(tmp_path)))
    message = str(error.value)
    assert f"'cifar10' is not in {tmp_path} (data.data_dir)" in message
    assert "pip install tensorflow tensorflow-datasets importlib_resources" in message
    assert f"tfds.builder('cifar10', data_dir='{tmp_path}').download_and_prepare()" in message


def test_unknown_split_feature_and_format_are_refused(tmp_path):
    directory = fixture.write_dataset(tmp_path, "toy", {"train": [1]})
    with pytest.raises(ValueError, match="no split 'test', only .'train'"):
        tfds.TfdsSource(directory, "test")
    with pytest.raises(ValueError, match="no feature 'depth', only"):
        tfds.TfdsSource(directory, "train", ["depth"])
    info = directory / "dataset_info.json"
    info.write_text(info.read_text().replace('"tfrecord"', '"riegeli"'))
    with pytest.raises(ValueError, match="'riegeli'; only tfrecord and array_record"):
        tfds.TfdsSource(directory, "train")


def shard(directory: Path) -> Path:
    return next(directory.glob("*-train.*"))


@pytest.mark.parametrize("cut", [1, 300, 3080])
def test_truncated_tfrecord_names_file_and_offset(tmp_path, cut):
    directory = fixture.write_dataset(tmp_path, "toy", {"train": [3]})
    path = shard(directory)
    whole = path.read_bytes()
    last = tfrecord.build_index(path)[-1][0] - 12
    path.write_bytes(whole[:-cut])
    with pytest.raises(tfrecord.DamagedRecordError) as error:
        tfds.TfdsSource(directory, "train")
    assert path.name in str(error.value) and f"byte {last}" in str(error.value)


def test_missing_records_are_noticed(tmp_path, file_format):
    directory = fixture.write_dataset(tmp_path, "toy", {"train": [3]}, file_format=file_format)
    path = shard(directory)
    fixture.write_records(path, [fixture.example_bytes({"label": 1})] * 2, file_format)
    with pytest.raises(tfrecord.DamagedRecordError, match="2 records where .* says 3"):
        tfds.TfdsSource(directory, "train")
    path.unlink()
    with pytest.raises(tfds.DatasetNotFound, match="is missing"):
        tfds.TfdsSource(directory, "train")


def test_truncated_array_record_is_noticed(tmp_path):
    pytest.importorskip("array_record")
    directory = fixture.write_dataset(tmp_path, "toy", {"train": [3]}, file_format="array_record")
    path = shard(directory)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(tfrecord.DamagedRecordError, match=path.name):
        tfds.TfdsSource(directory, "train")


def test_flipped_bits_of_array_record_are_noticed(tmp_path):
    pytest.importorskip("array_record")
    directory = fixture.write_dataset(tmp_path, "toy", {"train": [3]}, file_format="array_record")
    source = tfds.TfdsSource(directory, "train")
    path = shard(directory)
    whole = path.read_bytes()
    # The second block of 64 kB has the records' places; the first one the records.
    path.write_bytes(whole[:100] + bytes(byte ^ 1 for byte in whole[100:300]) + whole[300:])
    array_records._readers().cache_clear()
    with pytest.raises(tfrecord.DamagedRecordError, match=path.name):
        for i in range(3):
            source.record(i)


def test_as_many_array_record_files_stay_open_as_the_system_allows():
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(before[0], 256), before[1]))
        assert array_records._capacity() == min(2048, before[1] // 2)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(4096, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_flipped_bits_are_noticed(tmp_path):
    directory = fixture.write_dataset(tmp_path, "toy", {"train": [3]})
    path = shard(directory)
    whole = bytearray(path.read_bytes())
    start = int(tfrecord.build_index(path)[1][0])
    source = tfds.TfdsSource(directory, "train")
    path.write_bytes(whole[: start + 50] + bytes([whole[start + 50] ^ 1]) + whole[start + 51 :])
    assert source[0]["label"] == 0
    with pytest.raises(tfrecord.DamagedRecordError, match=f"byte {start - 12}: .*checksum"):
        source[1]
    path.write_bytes(whole[: start - 12] + b"\xff" + whole[start - 11 :])
    with pytest.raises(tfrecord.DamagedRecordError, match=f"byte {start - 12}: the length"):
        tfrecord.build_index(path)


def test_index_is_cached_and_made_again_when_the_file_changes(tmp_path, monkeypatch):
    path = tmp_path / "x.tfrecord"
    path.write_bytes(fixture.framed(b"one") + fixture.framed(b"three"))
    assert [tfrecord.TFRecordFile(path)[i] for i in range(2)] == [b"one", b"three"]
    build = tfrecord.build_index
    monkeypatch.setattr(tfrecord, "build_index", lambda path: pytest.fail("index not cached"))
    assert tfrecord.TFRecordFile(path)[1] == b"three"
    monkeypatch.setattr(tfrecord, "build_index", build)
    path.write_bytes(fixture.framed(b"another"))
    assert len(tfrecord.TFRecordFile(path)) == 1
    for file in (cache.cache_dir() / "tfrecord_index").iterdir():
        file.write_bytes(b"rubbish")
    assert tfrecord.TFRecordFile(path)[0] == b"another"


def test_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a directory")
    monkeypatch.setenv("BRANCHNETS_CACHE", str(tmp_path / "file"))
    path = tmp_path / "x.tfrecord"
    path.write_bytes(fixture.framed(b"one"))
    assert tfrecord.TFRecordFile(path)[0] == b"one"


def test_example_equals_the_generated_class_on_all_kinds():
    message = tfrecord.example_class()()
    message.features.feature["f"].float_list.value.extend([1.5, -2.0])
    message.features.feature["i"].int64_list.value.extend([3, -1])
    message.features.feature["b"].bytes_list.value.append(b"xy")
    message.features.feature["none"].SetInParent()
    parsed = tfrecord.parse_example(message.SerializeToString())
    assert parsed == {"f": [1.5, -2.0], "i": [3, -1], "b": [b"xy"], "none": []}


@needs_real
def test_real_cifar10():
    directory = tfds.find_dataset("cifar10")
    source = tfds.TfdsSource(directory, "test")
    split = tfds.read_split(directory, "test")
    assert split.images.shape == (10000, 32, 32, 3)
    np.testing.assert_array_equal(np.bincount(split.labels), [1000] * 10)
    for i in (0, 15, 16, 5000, 9999):
        np.testing.assert_array_equal(source[i]["image"], split.images[i])
    assert tfds.DatasetInfo.read(directory).class_names("label") == cifar.CIFAR10_CLASSES
    assert len(tfds.TfdsSource(directory, "train")) == 50000


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_equals_tfds_load(name):
    """Every image, label and id of both splits, in order, with what tfds.load gives."""
    loader = pytest.importorskip("tensorflow_datasets")
    try:
        directory = tfds.find_dataset(name)
    except tfds.DatasetNotFound:
        pytest.skip(f"TFDS_DATA_DIR has no {name}")
    for split in ("train", "test"):
        source = tfds.TfdsSource(directory, split)
        theirs = loader.load(
            name, split=split, data_dir=directory.parents[1], download=False, shuffle_files=False
        )
        count = 0
        for i, example in enumerate(loader.as_numpy(theirs)):
            ours = source[i]
            assert ours.keys() == example.keys()
            np.testing.assert_array_equal(ours["image"], example["image"])
            assert ours["id"] == example["id"].decode()
            for label in ours.keys() - {"image", "id"}:
                assert ours[label] == example[label]
            count += 1
        assert count == len(source)
        print(f"{name}/{split}: {count} examples equal")


@pytest.mark.tensorflow
@pytest.mark.parametrize("shards", [1, 2, 5, 16, 17, 40, 70])
def test_interleave_equals_tf_data(shards):
    tensorflow = pytest.importorskip("tensorflow")
    random = np.random.RandomState(shards)
    for lengths in (random.randint(0, 90, shards), np.full(shards, 32), np.full(shards, 33)):
        starts = np.cumsum(lengths) - lengths
        interleaved = tensorflow.data.Dataset.from_tensor_slices((starts, lengths)).interleave(
            lambda start, length: tensorflow.data.Dataset.range(start, start + length),
            cycle_length=16,
            block_length=16,
            num_parallel_calls=tensorflow.data.AUTOTUNE,
            deterministic=True,
        )
        order = np.array(list(interleaved.as_numpy_iterator()), np.int64)
        np.testing.assert_array_equal(tfds.interleave_order(lengths), order)


@pytest.mark.tensorflow
def test_array_record_equals_tfds_data_source(tmp_path):
    loader = pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("array_record")
    splits = {"train": [40, 23], "test": [9]}
    directory = fixture.write_dataset(tmp_path, "cifar10", splits, file_format="array_record")
    for split in splits:
        theirs = loader.data_source("cifar10", split=split, data_dir=tmp_path, download=False)
        source = tfds.TfdsSource(directory, split)
        assert len(source) == len(theirs)
        for i in range(len(source)):
            ours, example = source[i], theirs[i]
            np.testing.assert_array_equal(ours["image"], example["image"])
            assert ours["label"] == example["label"]
            assert ours["id"] == example["id"].decode()

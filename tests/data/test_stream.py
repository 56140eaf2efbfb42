"""Streamed input: one order for any number of hosts and workers, seeking, and faults."""

import dataclasses
import errno
import multiprocessing
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from jpeg_tree import encoded, left_in_memory, scene, shared_memory, split_of, write_tree

from branchnets import data
from branchnets.data import inputs
from branchnets.data.streamed import rows, workers
from branchnets.data.streamed.rows import GIVE_UP
from branchnets.data.streamed.stream import host_batches
from branchnets.data.streamed.workers import Chunks
from branchnets.engine import config as configs
from branchnets.errors import DataError

CLASSES = ("ant", "bee", "cat")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    return root, *write_tree(root, CLASSES, 9)


@pytest.fixture(scope="module")
def dataset(tree):
    split = split_of(*tree)
    return data.Dataset("tree", CLASSES, {"train": split, "test": split}, MEAN, STD)


def config_of(**overrides):
    config = configs.base()
    config.batch_size = 8
    fields = {"augment.crop_area": (0.2, 1.0), "data.workers": 0} | overrides
    return configs.apply_overrides(config, fields)


def draw(dataset, steps, process=0, processes=1, workers=0, config=None):
    """Host batches of consecutive steps, as one of several processes decodes them."""
    rows = inputs.train_rows(
        dataset.split("train"), dataset, config or config_of(), process, processes
    )
    chunks = Chunks(rows, steps[0] * rows.part.chunks, workers)
    try:
        batches = host_batches(chunks, rows.part.chunks)
        return [next(batches) for _ in steps]
    finally:
        chunks.close()


def assert_same(ones, others):
    for one, other in zip(ones, others, strict=True):
        for name in ("image", "label", "ok"):
            np.testing.assert_array_equal(one[name], other[name])


def test_an_epoch_shows_distinct_examples_in_an_order_of_its_own(dataset):
    batches = draw(dataset, range(6), config=config_of(**{"augment.crop_area": None}))
    images = [image.tobytes() for batch in batches for image in batch["image"]]
    first, second = images[:24], images[24:]
    assert first != second
    assert len(set(first)) == len(set(second)) == 24  # of 27


def test_two_hosts_decode_the_batch_of_one(dataset):
    whole = draw(dataset, range(2, 5))
    parts = [draw(dataset, range(2, 5), process, 2) for process in range(2)]
    joined = [
        {name: np.concatenate([one[name], other[name]]) for name in ("image", "label", "ok")}
        for one, other in zip(*parts, strict=True)
    ]
    assert_same(whole, joined)
    assert not np.array_equal(whole[0]["image"], whole[1]["image"])


def test_worker_processes_change_nothing_even_when_they_die(dataset, capfd):
    shared = shared_memory()
    want = draw(dataset, range(30))  # far more than lie ready when the process is killed
    rows = inputs.train_rows(dataset.split("train"), dataset, config_of())
    chunks = Chunks(rows, 0, workers=2)
    batches = host_batches(chunks, rows.part.chunks)
    found = [next(batches)]
    victim = multiprocessing.active_children()[0]
    os.kill(victim.pid, signal.SIGKILL)
    found += [next(batches) for _ in range(29)]
    start = time.monotonic()
    chunks.close()
    assert time.monotonic() - start < 10
    assert_same(found, want)
    assert "died (exit code -9: killed, perhaps for want of memory)" in capfd.readouterr().err
    assert not multiprocessing.active_children()
    # What the killed process had made and nobody has freed goes when this process ends.
    assert len(left_in_memory(shared)) <= workers._SHARED


def test_processes_that_die_too_often_stop_the_run(dataset):
    rows = inputs.train_rows(dataset.split("train"), dataset, config_of())
    chunks = Chunks(rows, 0, workers=1, restarts=0)
    batches = host_batches(chunks, rows.part.chunks)
    next(batches)
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    try:
        with pytest.raises(DataError, match="1 worker processes .* died .*fewer data.workers"):
            for _ in range(30):
                next(batches)
    finally:
        chunks.close()


def test_workers_that_cannot_start_stop_the_run(dataset, monkeypatch):
    def full(self):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(workers._Lane, "_start", full)
    chunks = Chunks(inputs.train_rows(dataset.split("train"), dataset, config_of()), workers=2)
    with pytest.raises(DataError, match="No space left on device.*fewer data.workers"):
        next(iter(chunks))
    chunks.close()


def test_memory_is_counted_for_every_worker(dataset):
    rows = inputs.train_rows(dataset.split("train"), dataset, config_of())
    one, two = (workers.memory(count, 1000, rows, 27) for count in (1, 2))
    own = one - workers.memory(1, 0, rows, 0)
    assert two == 2 * one and 24 * 27 < own < 12_000 and one > 460 * 2**20
    assert workers.shared_memory(0, 1000) == 0 and workers.memory(0, 0, rows, 27) == 24 * 27


def test_any_step_can_be_asked_for(dataset):
    config = config_of()
    train = data.train_input(dataset, config)
    assert train.steps_per_epoch == 3 and train.batch_size == 8
    arrays = [{n: np.asarray(a) for n, a in train.arrays(step).items()} for step in range(5)]
    again = [{n: np.asarray(a) for n, a in train.arrays(step).items()} for step in (4, 4, 2)]
    train.close()
    for name in ("images", "labels", "key"):
        for step, found in zip((4, 4, 2), again, strict=True):
            np.testing.assert_array_equal(arrays[step][name], found[name])
    resident = data.ResidentInput(
        data.Split(np.zeros((8, 4, 4, 3), np.uint8), np.zeros(8, int)), dataset, SimpleNamespace(),
        8, config.seed,
    )  # fmt: skip
    np.testing.assert_array_equal(arrays[0]["key"], np.asarray(resident.arrays(0)["key"]))


def test_the_device_gets_normalised_images_spread_over_it(dataset):
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    train = data.train_input(dataset, config_of(), mesh)
    arrays = train.arrays(3)
    batch = jax.jit(train.batch)(arrays, np.int32(3), jax.random.key(0))
    train.close()
    (want,) = draw(dataset, [3])
    pixels = (want["image"] / 255 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(batch["image"], pixels, atol=1e-5)
    np.testing.assert_array_equal(batch["label"], want["label"])
    assert {shard.data.shape[0] for shard in batch["image"].addressable_shards} == {2}


def evaluate(dataset, batch_size=8, **overrides):
    batches = data.eval_input(dataset.split("test"), dataset, config_of(**overrides), batch_size)
    return batches, [{n: np.asarray(a) for n, a in batch.items()} for batch in batches]


def test_evaluation_gives_each_example_once_in_order(dataset, tree):
    batches, found = evaluate(dataset)
    assert len(batches) == len(found) == 4 and batches.num_examples == 27
    mask = np.concatenate([batch["mask"] for batch in found])
    assert mask.tolist() == [1.0] * 27 + [0.0] * 5 and mask.dtype == np.float32
    label = np.concatenate([batch["label"] for batch in found])
    np.testing.assert_array_equal(label[:27], tree[2])
    np.testing.assert_array_equal(batches.labels, tree[2])
    _, again = evaluate(dataset, batch_size=27)
    np.testing.assert_array_equal(
        np.concatenate([batch["image"] for batch in found])[:27], again[0]["image"]
    )


def test_evaluation_takes_size_and_crop_fraction_from_the_config(dataset):
    _, usual = evaluate(dataset)
    _, larger = evaluate(dataset, **{"eval.image_size": 24})
    _, middle = evaluate(dataset, **{"eval.crop_fraction": 0.875})
    assert usual[0]["image"].shape[1:] == (16, 16, 3)
    assert larger[0]["image"].shape[1:] == (24, 24, 3)
    assert not np.allclose(usual[0]["image"], middle[0]["image"], atol=0.1)


def test_streamed_images_of_the_final_size_are_evaluated_as_those_in_memory(dataset, tmp_path):
    images = np.stack([scene(seed, 16, 16) for seed in range(10)])
    labels = np.arange(10) % 3
    for i, image in enumerate(images):
        (tmp_path / f"{i}.png").write_bytes(encoded(image, "PNG"))
    split = split_of(tmp_path, [f"{i}.png" for i in range(10)], labels)
    streamed, held = (
        evaluate(dataclasses.replace(dataset, splits={"test": found}))[1]
        for found in (split, data.Split(images, labels))
    )
    for one, other in zip(streamed, held, strict=True):
        for name in ("image", "label", "mask"):
            np.testing.assert_array_equal(one[name], other[name])


@pytest.fixture
def damaged(tree, dataset, tmp_path):
    """The dataset with one file cut short and one label outside the classes."""
    root, paths, labels = tree
    for path in paths:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).symlink_to(root / path)
    (tmp_path / paths[4]).unlink()
    (tmp_path / paths[4]).write_bytes((root / paths[4]).read_bytes()[:300])
    labels = labels.copy()
    labels[20] = 3
    split = split_of(tmp_path, paths, labels)
    return dataclasses.replace(dataset, splits={"train": split, "test": split})


def test_an_example_that_cannot_be_used_stops_training_at_its_step(damaged, tree):
    train = data.train_input(damaged, config_of(batch_size=27))
    with pytest.raises(DataError, match=r"(0\.jpg|4\.jpg|2\.jpg).*data\.on_error=skip"):
        train.arrays(0)
    with pytest.raises(DataError):  # and again, when it is asked again
        train.arrays(0)
    train.close()
    with pytest.raises(DataError, match=rf"{tree[1][4]}: .*cannot be read"):
        evaluate(damaged)
    with pytest.raises(DataError, match=r"label 3 of example 20 is outside the 3 classes"):
        _ = data.eval_input(damaged.split("test"), damaged, config_of(), 8).labels


def test_the_next_example_of_the_order_stands_for_one_that_is_skipped(damaged, dataset, capsys):
    config = config_of(**{"data.on_error": "skip", "batch_size": 9})
    found, want = (draw(each, range(3), config=config) for each in (damaged, dataset))
    assert sum(int((~batch["ok"]).sum()) for batch in found) == 2
    for one, other in zip(found, want, strict=True):
        np.testing.assert_array_equal(one["image"][one["ok"]], other["image"][one["ok"]])
        assert np.all(one["image"].std(axis=(1, 2, 3)) > 0)
    train = data.train_input(damaged, config)
    for step in range(6):
        train.arrays(step)
    train.close()
    assert train.unreadable == 4  # both, in each of two epochs
    told = [line for line in capsys.readouterr().err.splitlines() if "Passed over" in line]
    assert len(told) == 2 and any("label 3 is outside the 3 classes 0..2" in line for line in told)


def test_evaluation_masks_what_is_skipped(damaged, capsys):
    batches, found = evaluate(damaged, **{"data.on_error": "skip"})
    mask = np.concatenate([batch["mask"] for batch in found])[:27]
    assert np.flatnonzero(mask == 0).tolist() == [4, 20] and batches.unreadable == 2
    assert capsys.readouterr().err.count("Passed over") == 2


def test_a_data_set_that_is_gone_is_not_skipped(dataset, tmp_path):
    split = split_of(tmp_path, [f"{i}.jpg" for i in range(200)], np.zeros(200, int))
    gone = dataclasses.replace(dataset, splits={"train": split, "test": split.take(np.arange(9))})
    config = config_of(**{"data.on_error": "skip"})
    train = data.train_input(gone, config)
    with pytest.raises(DataError, match=f"{GIVE_UP} examples in a row cannot be used"):
        train.arrays(0)
    train.close()
    with pytest.raises(DataError, match="none of the 9 examples can be used"):
        evaluate(gone, **{"data.on_error": "skip"})


@pytest.mark.parametrize("failures", [2, 99])
def test_what_fails_on_the_machine_is_tried_again_and_never_skipped(
    tree, dataset, monkeypatch, failures
):
    root, paths, _ = tree
    monkeypatch.setattr(rows, "_WAITS", (0.0, 0.0))
    read, left = Path.read_bytes, [failures]

    def fails(path):
        if path == root / paths[4] and left[0]:
            left[0] -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", fails)
    config = config_of(**{"data.on_error": "skip", "batch_size": 27})
    if failures == 2:
        (batch,) = draw(dataset, [0], config=config)
        assert batch["ok"].all() and left == [0]
        return
    message = r"4\.jpg cannot be read: Too many open files \(tried 3 times\)$"
    with pytest.raises(DataError, match=message):
        draw(dataset, [0], config=config)
    with pytest.raises(DataError, match=message):
        evaluate(dataset, **{"data.on_error": "skip"})


def test_too_little_memory_says_nothing_of_an_image(dataset, monkeypatch):
    def decode(*arguments):
        raise MemoryError

    monkeypatch.setattr(rows.decode, "_with_opencv", decode)
    monkeypatch.setattr(rows.decode, "_with_pillow", decode)
    with pytest.raises(DataError, match="too little memory to decode it$"):
        draw(dataset, [0], config=config_of(**{"data.on_error": "skip"}))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"augment.crop_area": (0.5,)}, r"augment\.crop_area=\(0\.5,\) must be a smallest"),
        ({"augment.crop_area": (0.5, 2.0)}, "at most 1"),
        ({"augment.crop_ratio": (2.0, 1.0)}, r"augment\.crop_ratio"),
        ({"batch_size": 28}, "27 examples, fewer than one batch of 28"),
    ],
)
def test_what_means_nothing_is_refused(dataset, overrides, message):
    with pytest.raises(DataError, match=message):
        data.train_input(dataset, config_of(**overrides))

"""Mini-ImageNet from a few images: which ones, in what order, and what can be wrong."""

from types import SimpleNamespace

import numpy as np
import pytest
import tfds_fixture as fixture
from PIL import Image

from branchnets import data
from branchnets.data.images import read_image
from branchnets.data.sets import mini_imagenet
from branchnets.data.stored.held import hold
from branchnets.errors import DataError

WNIDS = ("n01", "n03", "n02")
NUMBERS = (1, 2, 3, 10, 20, 100)


@pytest.fixture
def root(tmp_path):
    """Six JPEG images of three classes and another one; names that do not sort as numbers do."""
    random = np.random.RandomState(0)
    for wnid in (*WNIDS, "n99"):
        for number in NUMBERS:
            path = tmp_path / "train" / wnid / f"{wnid}_{number}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            shape = (random.randint(9, 20), random.randint(9, 20), 3)
            Image.fromarray(random.randint(0, 256, shape).astype(np.uint8)).save(path)
    return tmp_path


def records_of_tfds(root):
    """The images of `root` as tfds's imagenet2012 in two shards, shuffled."""
    wnids, features = ("n01", "n02", "n03", "n99"), ("file_name", "image", "label")
    paths = sorted((root / "train").glob("*/*.JPEG"))
    np.random.RandomState(1).shuffle(paths)
    examples = [
        {
            "file_name": path.name.encode(),
            "image": path.read_bytes(),
            "label": wnids.index(path.parent.name),
        }
        for path in paths
    ]
    shards = {"train": [examples[:11], examples[11:]]}
    return fixture.write_examples(root / "records", "imagenet2012", shards, wnids, features)


def read(records):
    return mini_imagenet.divide(records, len(WNIDS), (8, 8, 3), train_per_class=3)


@pytest.mark.parametrize("form", ["", "train", "tfds"])
def test_the_first_by_name_in_label_order(root, form):
    if form == "tfds":
        records = mini_imagenet.from_tfds(records_of_tfds(root), WNIDS, 5)
    else:
        records = mini_imagenet.from_folders(root / form, WNIDS, 5)
    splits = read(records)
    np.testing.assert_array_equal(splits["train"].labels, np.repeat(range(3), 3))
    np.testing.assert_array_equal(splits["test"].labels, np.repeat(range(3), 2))
    for name, numbers in (("train", (1, 10, 100)), ("test", (2, 20))):
        paths = [root / "train" / w / f"{w}_{n}.JPEG" for w in WNIDS for n in numbers]
        want = [read_image(path, (8, 8, 3)) for path in paths]
        np.testing.assert_array_equal(hold(splits[name], "").images, want)
        assert [splits[name][i].label for i in range(len(paths))] == list(splits[name].labels)


def test_what_was_decoded_is_kept(root, capsys):
    records = mini_imagenet.from_folders(root, WNIDS, 5)
    first = {name: hold(split, name) for name, split in read(records).items()}
    assert "train: 100%" in capsys.readouterr().err
    again = {name: hold(split, name) for name, split in read(records).items()}
    assert "train" not in capsys.readouterr().err  # from the cache
    for name in first:
        np.testing.assert_array_equal(again[name].images, first[name].images)


def test_what_is_wrong_is_named(root):
    bad = root / "train" / "n02" / "n02_1.JPEG"
    whole = bad.read_bytes()

    def decode():
        return hold(read(mini_imagenet.from_folders(root, WNIDS, 5))["train"], "")

    bad.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"n02_1\.JPEG cannot be read"):
        decode()
    bad.write_text("no image")
    with pytest.raises(DataError, match=r"n02_1\.JPEG is no image"):
        decode()
    bad.unlink()
    decode()  # one of six may be missing
    (root / "train" / "n02" / "n02_2.JPEG").unlink()
    with pytest.raises(DataError, match="n02 has 4 images; mini_imagenet takes the first 5"):
        decode()
    with pytest.raises(DataError, match="class n02 in .* has 4 images; mini_imagenet takes"):
        mini_imagenet.from_tfds(records_of_tfds(root), WNIDS, 5)
    (root / "train" / "n03").rename(root / "n03")
    with pytest.raises(DataError, match="train/n03 is missing.*one of the 3 classes.*1 of them"):
        decode()


def test_the_hundred_classes_are_known_without_the_images():
    spec = data.spec(None, SimpleNamespace(name="mini_imagenet", crop_size=64))
    assert spec.image_shape == (64, 64, 3) and spec.num_classes == 100
    assert len(set(spec.class_names)) == 100
    wnids = list(mini_imagenet.classes())
    assert wnids == sorted(wnids) and all(len(w) == 9 and w[0] == "n" for w in wnids)
    assert mini_imagenet.classes()["n02099601"] == "golden retriever"


def test_no_data(root, tmp_path):
    cfg = SimpleNamespace(name="mini_imagenet", data_dir=str(root / "none"))
    with pytest.raises(DataError, match=r"(?s)imagenet2012.*none.*DIR/train/n01532829/\*\.JPEG"):
        data.load(cfg)
    with pytest.raises(DataError, match="train/n01532829 is missing.*100 of them"):
        data.load(SimpleNamespace(name="mini_imagenet", data_dir=str(root)))


@pytest.mark.parametrize("form", ["folders", "tfds"])
def test_whole_through_load(root, monkeypatch, form):
    """Of the reader: names, statistics and the per-pixel mean of the 64x64 recipe, in small."""
    monkeypatch.setattr(mini_imagenet, "classes", lambda: dict(zip(WNIDS, "abc", strict=True)))
    monkeypatch.setattr(mini_imagenet.from_folders, "__defaults__", (5,))
    monkeypatch.setattr(mini_imagenet.from_tfds, "__defaults__", (5,))
    monkeypatch.setattr(mini_imagenet.divide, "__defaults__", (3,))
    where = root if form == "folders" else records_of_tfds(root).parents[1]
    cfg = SimpleNamespace(
        name="mini_imagenet", data_dir=str(where), image_size=8, crop_size=6, per_pixel_mean=True
    )
    found = data.load(cfg)
    assert found.class_names == ("a", "b", "c") and found.image_shape == (6, 6, 3)
    pixels = found.split("train").images / 255
    assert pixels.shape == (9, 8, 8, 3)
    np.testing.assert_allclose(found.mean, pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.std, pixels.reshape(-1, 3).std(axis=0), rtol=1e-9)
    cfg = SimpleNamespace(name="mini_imagenet", data_dir=str(where), stream=True)
    streamed = data.load(cfg)
    assert streamed.streamed and len(streamed.split("test")) == 6

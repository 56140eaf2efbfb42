"""Mini-ImageNet from a folder of a few images: which ones, in what order, and what can be wrong."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from branchnets import data
from branchnets.data import mini_imagenet
from branchnets.data.images import read_image
from branchnets.errors import DataError

WNIDS = ("n01", "n03", "n02")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("BRANCHNETS_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def root(tmp_path):
    """Six JPEG images of three classes and another one; names that do not sort as numbers do."""
    random = np.random.RandomState(0)
    for wnid in (*WNIDS, "n99"):
        for number in (1, 2, 3, 10, 20, 100):
            path = tmp_path / "train" / wnid / f"{wnid}_{number}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            shape = (random.randint(9, 20), random.randint(9, 20), 3)
            Image.fromarray(random.randint(0, 256, shape).astype(np.uint8)).save(path)
    return tmp_path


def read(root, **changes):
    settings = {"per_class": 5, "train_per_class": 3, "size": 8, **changes}
    return mini_imagenet.read_folders(root, WNIDS, **settings)


@pytest.mark.parametrize("below", ["", "train"])
def test_the_first_by_name_in_label_order(root, below, capsys):
    splits = read(root / below)
    np.testing.assert_array_equal(splits["train"].labels, np.repeat(range(3), 3))
    np.testing.assert_array_equal(splits["test"].labels, np.repeat(range(3), 2))
    for name, numbers in (("train", (1, 10, 100)), ("test", (2, 20))):
        paths = [root / "train" / w / f"{w}_{n}.JPEG" for w in WNIDS for n in numbers]
        want = [read_image(path, (8, 8, 3)) for path in paths]
        np.testing.assert_array_equal(splits[name].images, want)
    assert "mini_imagenet, train: 100%" in capsys.readouterr().err
    again = read(root / below)
    np.testing.assert_array_equal(again["test"].images, splits["test"].images)
    assert "mini_imagenet" not in capsys.readouterr().err  # from the cache


def test_what_is_wrong_is_named(root):
    bad = root / "train" / "n02" / "n02_20.JPEG"
    whole = bad.read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"n02_20\.JPEG cannot be read"):
        read(root)
    bad.write_text("no image")
    with pytest.raises(DataError, match=r"n02_20\.JPEG is no image"):
        read(root)
    bad.unlink()
    read(root)  # one of six may be missing
    (root / "train" / "n02" / "n02_1.JPEG").unlink()
    with pytest.raises(DataError, match="n02 has 4 images; mini_imagenet takes the first 5"):
        read(root)
    (root / "train" / "n03").rename(root / "n03")
    with pytest.raises(DataError, match="train/n03 is missing.*one of the 3 classes.*1 of them"):
        read(root)


def test_the_hundred_classes_are_known_without_the_images(root):
    spec = data.spec(None, SimpleNamespace(name="mini_imagenet", crop_size=64))
    assert spec.image_shape == (64, 64, 3) and spec.num_classes == 100
    assert len(set(spec.class_names)) == 100
    wnids = list(mini_imagenet.classes())
    assert wnids == sorted(wnids) and all(len(w) == 9 and w[0] == "n" for w in wnids)
    assert mini_imagenet.classes()["n02099601"] == "golden retriever"


def test_no_data(root):
    with pytest.raises(DataError, match="needs data.data_dir=DIR with ImageNet's training"):
        data.load(SimpleNamespace(name="mini_imagenet"))
    cfg = SimpleNamespace(name="mini_imagenet", data_dir=str(root / "none"))
    with pytest.raises(DataError, match="there is no folder .*none"):
        data.load(cfg)
    with pytest.raises(DataError, match="train/n01532829 is missing.*100 of them"):
        data.load(SimpleNamespace(name="mini_imagenet", data_dir=str(root)))
    info = root / "records" / "imagenet2012" / "5.1.0" / "dataset_info.json"
    info.parent.mkdir(parents=True)
    info.write_text("{}")
    with pytest.raises(DataError, match="records of TensorFlow Datasets.*from image files"):
        data.load(SimpleNamespace(name="mini_imagenet", data_dir=str(root / "records")))


def test_whole_through_load(root, monkeypatch):
    """Of the reader: names, statistics and the per-pixel mean of the 64x64 recipe, in small."""
    monkeypatch.setattr(mini_imagenet, "classes", lambda: dict(zip(WNIDS, "abc", strict=True)))
    splits = read(root)
    monkeypatch.setattr(mini_imagenet, "read_folders", lambda root, wnids: splits)
    cfg = SimpleNamespace(
        name="mini_imagenet", data_dir=str(root), crop_size=6, per_pixel_mean=True
    )
    found = data.load(cfg)
    assert found.class_names == ("a", "b", "c") and found.image_shape == (6, 6, 3)
    pixels = found.split("train").images / 255
    np.testing.assert_allclose(found.mean, pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.std, pixels.reshape(-1, 3).std(axis=0), rtol=1e-9)

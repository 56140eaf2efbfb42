"""Lists of path and label in place of class folders, and ImageNet's own layout."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from branchnets import data
from branchnets.data.sets import imagenet
from branchnets.data.stored import listing
from branchnets.errors import DataError


@pytest.fixture
def root(tmp_path):
    """Six images, the class of each in the lists alone."""
    random = np.random.RandomState(0)
    (tmp_path / "photos").mkdir()
    for i in range(6):
        pixels = random.randint(0, 256, (6 + i, 7, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    (tmp_path / "train.csv").write_text(
        "photos/3.png,dog\nphotos/1.png, cat\n\nphotos/0.png,dog\nphotos/2.png,cat\n"
    )
    (tmp_path / "val.csv").write_text("label,id,filename\ndog,17,photos/5.png\n")
    return tmp_path


def load(root, **fields):
    return data.load(SimpleNamespace(name="folder", data_dir=str(root), **fields))


def test_lists_are_read_in_place_of_folders(root):
    found = load(root, image_size=6, stream=True)
    train, test = found.split("train"), found.split("test")
    assert found.class_names == ("cat", "dog") and found.streamed
    assert [(train[i].name, train[i].label) for i in range(4)] == [
        (str(root / "photos" / name), label)
        for name, label in (("1.png", 0), ("2.png", 0), ("0.png", 1), ("3.png", 1))
    ]
    assert train[0].data == (root / "photos" / "1.png").read_bytes()
    assert (len(test), test[0].label) == (1, 1)
    held = load(root, image_size=6)
    np.testing.assert_array_equal(held.split("train").labels, train.labels)
    assert held.image_shape == found.image_shape == (6, 6, 3)
    assert found.mean == (0.485, 0.456, 0.406) != held.mean


def test_numbers_as_class_names_are_ordered_by_value(root):
    labels = (10, 2, 0, 1, 9, 11)
    lines = [f"photos/{i}.png,{label}\n" for i, label in enumerate(labels)]
    (root / "train.csv").write_text("".join(lines))
    (root / "val.csv").write_text(lines[1])
    found = load(root, image_size=6, stream=True)
    assert found.class_names == ("0", "1", "2", "9", "10", "11")
    assert found.split("test")[0].label == 2
    assert data.spec(None, SimpleNamespace(name="folder", data_dir=str(root))).image_shape[0] == 8
    for name in ("10", "9", "a9"):
        (root / "folders" / name).mkdir(parents=True)
    assert listing.classes_of(root / "folders") == ("10", "9", "a9")
    (root / "folders" / "a9").rmdir()
    assert listing.classes_of(root / "folders") == ("9", "10")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("photos/1.png\n", "image 1 has no path or no label: 'photos/1.png'"),
        ("a,b\nphotos/1.png,cat\n", "starts with 'a,b', which is neither an image.*'path'"),
        ("path,kind\nphotos/1.png,cat\n", "names a column 'label'"),
        ("path,label\n", "lists no images"),
        ("photos/1.png,ape\n", "a class 'ape' that the training split has not"),
    ],
)
def test_lists_that_cannot_be_used_are_told(root, text, message):
    (root / "val.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        load(root, image_size=6, stream=True)


def test_images_that_are_not_there_are_named_when_they_are_read(root):
    (root / "photos" / "0.png").unlink()
    train = load(root, image_size=6, stream=True).split("train")
    with pytest.raises(DataError, match=r"photos/0\.png cannot be read"):
        train[2]


def test_what_a_streamed_folder_needs_is_told(root):
    with pytest.raises(DataError, match=r"needs data\.image_size"):
        load(root, stream=True)
    with pytest.raises(DataError, match=r"data\.crop_size is for data sets held in memory"):
        load(root, image_size=6, stream=True, crop_size=4)
    with pytest.raises(DataError, match=r"there is no folder memory://somewhere"):
        load("memory://somewhere")


@pytest.fixture(scope="module")
def small_imagenet(tmp_path_factory):
    """A thousand folders of one and the same image."""
    root = tmp_path_factory.mktemp("imagenet")
    (root / "one").mkdir()
    Image.fromarray(np.zeros((9, 12, 3), np.uint8)).save(root / "one" / "image.JPEG")
    for split in ("train", "val"):
        (root / split).mkdir()
        for wnid in imagenet.classes():
            (root / split / wnid).symlink_to(root / "one")
    return root


def test_imagenet_from_its_folders(small_imagenet):
    cfg = SimpleNamespace(
        name="imagenet2012", data_dir=str(small_imagenet), image_size=32, mean=(0.1, 0.2, 0.3)
    )
    assert data.streams(cfg)
    found = data.load(cfg)
    assert found.streamed and found.spec == data.spec(None, cfg) == data.spec(found, cfg)
    assert found.image_shape == (32, 32, 3) and found.mean == (0.1, 0.2, 0.3)
    np.testing.assert_array_equal(found.split("test").labels, np.arange(1000))
    example = found.split("train")[388]
    assert found.class_names[example.label] == "giant panda" and "n02510455" in example.name
    cfg.validation_size = 300
    divided = data.load(cfg)
    sizes = {name: len(split) for name, split in divided.splits.items()}
    assert sizes == {"train": 700, "validation": 300, "test": 1000}
    parts = [divided.split(name).labels for name in ("train", "validation")]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(1000))


def test_loose_test_images_beside_a_validation_split_are_left_out(small_imagenet, tmp_path):
    for split in ("train", "val"):
        (tmp_path / split).symlink_to(small_imagenet / split)
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "ILSVRC2012_test_00000001.JPEG").write_bytes(b"")
    places = listing.split_places(tmp_path)
    assert places == {"train": tmp_path / "train", "test": tmp_path / "val"}
    assert listing.index(tmp_path, tuple(imagenet.classes())).splits.keys() == {"train", "test"}


def test_layouts_of_imagenet_that_are_not_known_are_told(small_imagenet, tmp_path):
    (tmp_path / "train").symlink_to(small_imagenet / "train")
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"")
    cfg = SimpleNamespace(name="imagenet2012", data_dir=str(tmp_path))
    layout = r"val_00000001\.JPEG lies there without one.*DIR/train/n01440764.*val/n01440764/"
    with pytest.raises(DataError, match=layout):
        data.load(cfg)
    (tmp_path / "train").unlink()
    (tmp_path / "train" / "n01440764").mkdir(parents=True)
    with pytest.raises(DataError, match="lacks 999 of the 1000 classes.*data.name=folder"):
        data.load(cfg)
    cfg.data_dir = str(tmp_path / "train")
    with pytest.raises(DataError, match=r"(?s)download_and_prepare.*DIR/train/n01440764/\*\.JPEG"):
        data.load(cfg)
    names = tuple(imagenet.classes().values())
    assert len(set(names)) == len(imagenet.classes()) == 1000
    assert list(imagenet.classes()) == sorted(imagenet.classes())


def test_birds_from_the_archive_as_published(tmp_path):
    from branchnets.data.sets import birds

    keys = birds.published().keys
    chosen = (keys[0], keys[199], keys[4])
    for i, key in enumerate(chosen):
        (tmp_path / "images" / key).mkdir(parents=True)
        Image.fromarray(np.full((5, 6 + i, 3), i, np.uint8)).save(
            tmp_path / "images" / key / "a.jpg"
        )
    lines = [f"{i} {key}/a.jpg\n" for i, key in enumerate(chosen, 1)]
    (tmp_path / "images.txt").write_text("".join(lines))
    (tmp_path / "train_test_split.txt").write_text("1 1\n2 0\n3 1\n")
    cfg = SimpleNamespace(name="caltech_birds2011", data_dir=str(tmp_path), image_size=4)
    streamed = data.load(cfg)
    train, test = streamed.split("train"), streamed.split("test")
    assert [train[i].label for i in range(2)] == [0, 4] and test[0].label == 199
    assert streamed.class_names[0] == "Black footed Albatross" and streamed.num_classes == 200
    cfg.stream = False
    held = data.load(cfg)
    assert not held.streamed and held.split("train").images.shape == (2, 4, 4, 3)
    (tmp_path / "train_test_split.txt").write_text("1 1\n2 0\n")
    with pytest.raises(DataError, match="number different images"):
        data.load(cfg)


def test_where_nothing_lies_both_layouts_are_told(tmp_path):
    with pytest.raises(DataError, match="has no folder 'train'; images lie.*train.csv"):
        listing.split_places(tmp_path)

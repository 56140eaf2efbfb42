"""A classifier.json that is JSON and nonsense: a message, never a traceback."""

import json
import shutil

import jax
import jax.numpy as jnp
import pytest

import branchnets
from branchnets.deploy.classifier import load_classifier
from branchnets.deploy.folder import RECORD, write_folder
from branchnets.deploy.preprocess import Preprocessing
from branchnets.errors import UserError
from branchnets.families.study import Slimmed

SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    model = branchnets.create_model("coded_resnext_digits", active=((10,), (5,), (3,)))
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, *SHAPE)))
    names = tuple(map(str, range(10)))
    slimmed = Slimmed(model, jax.device_get(variables), names, None, {})
    preprocessing = Preprocessing(SHAPE, SHAPE, (0.5,), (0.2,))
    place = tmp_path_factory.mktemp("deploy") / "whole"
    write_folder(place, "coded", slimmed, preprocessing, {})
    load_classifier(place)
    return place


@pytest.mark.parametrize(
    "path, value",
    [
        ("family", []),
        ("module/type", []),
        ("module/fields/num_classes", "x"),
        ("module/fields/stages", 3),
        ("preprocessing/mean", [0.1, 0.2, 0.3]),
        ("preprocessing/std", [0.0]),
        ("preprocessing/content_shape", [0, 8, 1]),
        ("preprocessing/content_shape", [8, 8, 3]),
        ("preprocessing/content_shape", [16, 16, 1]),
    ],
)
def test_nonsense_is_refused(whole, tmp_path, path, value):
    place = tmp_path / "damaged"
    shutil.copytree(whole, place)
    record = json.loads((place / RECORD).read_text())
    *parents, last = path.split("/")
    inner = record
    for name in parents:
        inner = inner[name]
    assert last in inner
    inner[last] = value
    (place / RECORD).write_text(json.dumps(record))
    with pytest.raises(UserError):
        load_classifier(place)

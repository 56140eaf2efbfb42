"""A network with random weights, whole and slimmed, and the folder that it is written to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from deploy_network import CLASSES, PARENT, PREPROCESSING, SHAPE

import branchnets
from branchnets.deploy import folder
from branchnets.families.coded import slim
from branchnets.families.coded.codes import load_scheme
from branchnets.families.study import Slimmed


@pytest.fixture(scope="session")
def full():
    """A full network with random weights and statistics, and its coding schemes."""
    model = branchnets.create_model("coded_resnext_digits", active=((10,), (5,), (3,)))
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, *SHAPE)))
    random = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key == "kernel":
            return leaf
        if path[-1].key in ("scale", "var"):
            return jnp.asarray(random.uniform(0.5, 1.5, leaf.shape), jnp.float32)
        return jnp.asarray(0.3 * random.standard_normal(leaf.shape), jnp.float32)

    variables = jax.tree_util.tree_map_with_path(draw, variables)
    schemes = {
        "stage3/block0": load_scheme("cifar10_5of10"),
        "stage4/block0": load_scheme("cifar10_3of10"),
    }
    return model, variables, schemes


@pytest.fixture(scope="session")
def slimmed(full):
    model, variables, schemes = full
    keep = slim.keep_of(schemes, CLASSES)
    return Slimmed(
        slim.slim_model(model, keep, CLASSES),
        jax.device_get(slim.slim_variables(model, variables, keep, CLASSES)),
        ("cat", "ship"),
        (0.5, -1.25),
        {"parameters": 123, "scores": {"cat": {"f1": 0.5}}},
    )


@pytest.fixture(scope="session")
def written(slimmed, tmp_path_factory):
    place = tmp_path_factory.mktemp("deploy") / "net"
    return folder.write_folder(place, "coded", slimmed, PREPROCESSING, PARENT)


@pytest.fixture
def copy(written, tmp_path):
    """A copy of the folder, to be damaged."""
    for file in written.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path

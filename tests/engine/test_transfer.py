"""Fine-tuning: what is taken from a trained network, what starts anew, and what is refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import branchnets
from branchnets.engine import config as configs
from branchnets.engine import mesh as meshes
from branchnets.engine import transfer
from branchnets.engine.leaves import leaf_name
from branchnets.engine.records.rundir import RunDir
from branchnets.engine.runs import load_run
from branchnets.engine.saving.checkpoint import Checkpoints
from branchnets.engine.setup import prepare
from branchnets.errors import ConfigError, DeployError

ONE = jax.devices()[:1]
HEAD = "params/head/linear/kernel"


def plain(**overrides):
    """A ResNeXt of one block a stage, on made-up 8x8 images."""
    config = configs.base("plain")
    config.model.name = "resnext_digits"
    config.model.depths = (1, 1, 1)
    config.model.head_bias = False
    config.batch_size, config.data.fake_size = 8, 16
    config.data.name, config.data.image_size = "fake", 8
    config.data.num_classes, config.data.channels = 10, 1
    return configs.apply_overrides(config, overrides)


def coded(**overrides):
    """The same with coded blocks."""
    config = configs.base("coded")
    config.model.name = "coded_resnext_digits"
    config.model.active = ((10,), (5,), (3,))
    config.batch_size, config.data.fake_size = 8, 16
    config.data.name, config.data.image_size = "fake", 8
    config.data.num_classes, config.data.channels = 10, 1
    return configs.apply_overrides(config, overrides)


def variables(state):
    flat, _ = jax.tree_util.tree_flatten_with_path(state.variables)
    return {leaf_name(path): np.asarray(leaf) for path, leaf in flat}


@pytest.fixture(scope="module")
def setup():
    """What training that plain network needs."""
    return prepare(plain(), ONE)


@pytest.fixture(scope="module")
def source(setup, tmp_path_factory):
    """A run directory of a plain network whose every variable is random: (path, variables)."""
    path = tmp_path_factory.mktemp("source") / "run"
    random = np.random.default_rng(0)
    state = jax.tree.map(
        lambda x: jax.device_put(
            np.asarray(random.random(x.shape), x.dtype) + np.asarray(1, x.dtype),
            meshes.replicated(setup.mesh),
        ),
        setup.init_state(),
    )
    with RunDir(path) as run_dir:
        run_dir.start(setup.config, setup.derived(), {})
        with Checkpoints(run_dir.checkpoints) as checkpoints:
            checkpoints.save(3, state)
    return path, variables(state)


def starting(setup, **fields):
    """What training needs, with fields of the config's `init` that name a source."""
    config = setup.config.copy_and_resolve_references()
    with config.unlocked():
        config.init.update(fields)
    return dataclasses.replace(setup, config=config)


def begun(setup, **fields):
    """(start, state) of a run that begins with a source."""
    setup = starting(setup, **fields)
    start = transfer.start(setup)
    return start, setup.init_state(start.given)


def test_all_of_a_network_with_as_many_classes_is_taken(setup, source):
    path, theirs = source
    start, state = begun(setup, source=str(path))
    ours = variables(state)
    assert ours.keys() == theirs.keys() and int(state.step) == 0
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert start.record == {
        "source": str(path),
        "model": "resnext_digits",
        "step": 3,
        "taken": len(ours),
        "fresh": [],
    }
    momenta = jax.tree.leaves(state.opt_state)
    assert all(not np.any(leaf) for leaf in momenta)


def test_a_head_for_other_classes_is_the_one_a_fresh_run_has(source):
    path, theirs = source
    five = prepare(plain(**{"data.num_classes": 5, "seed": 5}), ONE)
    start, state = begun(five, source=str(path))
    ours, fresh = variables(state), variables(five.init_state())
    assert start.record["fresh"] == [HEAD] and ours[HEAD].shape[-1] == 5
    for name, value in ours.items():
        assert np.array_equal(value, fresh[name] if name == HEAD else theirs[name])
    assert "at step 3" in start.text and f"new: {HEAD}." in start.text


def test_a_plain_network_begins_a_coded_one_of_the_same_names(source):
    path, theirs = source
    start, state = begun(prepare(coded(), ONE), source=str(path), new_head=True)
    ours = variables(state)
    assert start.record["fresh"] == [HEAD]
    assert not np.array_equal(ours[HEAD], theirs[HEAD])
    assert all(np.array_equal(ours[n], theirs[n]) for n in ours if n != HEAD)


def test_a_file_of_weights_is_as_good_as_the_run(setup, source, tmp_path):
    path, theirs = source
    file = load_run(path, devices=ONE).save_weights(tmp_path / "w.safetensors")
    start, state = begun(setup, source=str(file))
    ours = variables(state)
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert start.record["taken"] == len(theirs) and "step" not in start.record
    assert "names that are not known" in start.text and "init.new_head" in start.text
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(DeployError, match="w.safetensors cannot be read"):
        begun(setup, source=str(file))


def test_running_averages_are_taken_in_place_of_what_they_are_averages_of(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        state = {
            "params": {"params": {"w": np.float32([1])}, "masks": {"a/b": np.float32([3])}},
            "model_state": {"batch_stats": {"mean": np.float32([4])}},
            "ema": {"params": {"w": np.float32([2])}},
            "opt_state": {"params": {"w": np.float32([9])}},
        }
        checkpoints.save(1, state)
        mesh = meshes.make_mesh(ONE)
        found, step = checkpoints.variables(None, meshes.replicated(mesh))
    values = {name: float(value[0]) for name, value in found.items()}
    assert step == 1
    assert values == {"params/w": 2, "masks/a/b": 3, "batch_stats/mean": 4}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"checkpoint": "7"}, "no checkpoint of step 7"),
        ({"checkpoint": "newest"}, "init.checkpoint is latest, best or a step"),
        ({"source": "nowhere"}, "neither a run directory (with config.json) nor a file"),
        ({"source": __file__, "checkpoint": "best"}, "is no run directory; leave it out"),
    ],
)
def test_a_source_that_is_not_there_is_told(setup, source, fields, words):
    with pytest.raises(branchnets.errors.UserError) as told:
        transfer.start(starting(setup, **{"source": str(source[0]), **fields}))
    assert words in str(told.value)


def test_another_network_is_told_with_the_differences(source):
    wider = prepare(plain(**{"model.width": 12}), ONE)
    with pytest.raises(ConfigError) as told:
        transfer.start(starting(wider, source=str(source[0])))
    for words in (
        "does not fit resnext_digits",
        "batch_stats/stage2/block0/branch_bn/mean: shape (",
        " more\n",
        "The last layer alone may differ",
    ):
        assert words in str(told.value)


def shapes(**sizes):
    return {name: np.zeros(shape, np.float32) for name, shape in sizes.items()}


def test_every_head_starts_anew_where_one_has_other_classes():
    """Heads that differ otherwise than in their classes are refused all the same."""
    found = {**shapes(**{"params/a/w": (3, 10), "params/a/b": (10,), "params/x": (2,)})}
    wanted = {**shapes(**{"params/a/w": (3, 4), "params/x": (2,)})}
    assert transfer.fresh_names(found, wanted, ["a"], 4) == ["params/a/w"]
    with pytest.raises(ConfigError, match=r"params/x: float32 in the source, float64 wanted"):
        transfer.fresh_names(found, {**wanted, "params/x": np.zeros(2)}, ["a"], 4)
    with pytest.raises(ConfigError, match=r"params/a/w: shape \(3, 10\) in the source, \(4, 4\)"):
        transfer.fresh_names(found, {**wanted, **shapes(**{"params/a/w": (4, 4)})}, ["a"], 4)
    with pytest.raises(ConfigError, match="params/y: not in the source"):
        transfer.fresh_names(found, {**wanted, **shapes(**{"params/y": (2,)})}, ["a"], 4)
    ten = shapes(**{"params/a/w": (3, 10), "params/x": (2,)})  # no new classes, but no bias
    with pytest.raises(ConfigError, match="(?s)params/a/b: only in the source.*init.new_head=True"):
        transfer.fresh_names(found, ten, ["a"], 10)


def test_classes_of_other_names_under_an_old_head_are_told(setup, source):
    path, _ = source
    document = json.loads((path / "config.json").read_text())
    names = document["resolved"]["data"]["class_names"]
    start = transfer.start(starting(setup, source=str(path)))
    assert "other names" not in start.text
    text = transfer._text(start.record, names[::-1], names)
    assert "other names" in text and "init.new_head=True" in text

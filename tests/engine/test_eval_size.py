"""Evaluation at another image size than that of training: resident and streamed."""

import dataclasses
import shutil

import flax.linen as nn
import flax.struct
import jax
import numpy as np
import pytest

from branchnets import data, main
from branchnets.data.prepare import resize
from branchnets.engine import config as configs
from branchnets.engine import setup as setups
from branchnets.engine.records.rundir import RunDir
from branchnets.engine.runs import load_run
from branchnets.engine.saving.checkpoint import Checkpoints
from branchnets.errors import ConfigError
from branchnets.families import base

ONE = jax.devices()[:1]


def small(**overrides):
    config = configs.base("plain")
    config.model.name = "resnext_digits"
    config.model.depths = (1, 1)
    config.data.name, config.data.image_size = "digits", 16
    config.batch_size = 64
    return configs.apply_overrides(config, overrides)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A run whose weights are those it began with."""
    place = tmp_path_factory.mktemp("sizes") / "run"
    config = small()
    setup = setups.prepare(config, ONE)
    with RunDir(place) as run_dir:
        run_dir.start(config, setup.derived(), {})
        with Checkpoints(run_dir.checkpoints) as checkpoints:
            checkpoints.save(1, setup.init_state())
    return place


def test_resident_images_are_resized_from_what_is_stored(path, capsys):
    run = load_run(path, config=small(**{"eval.image_size": 12}), devices=ONE)
    batch = next(iter(run.setup.evaluation_input("test")))
    stored = configs.base("plain").data
    stored.name = "digits"  # 8x8, as they are
    images = resize(data.load(stored).split("test"), 12).images
    want = (images[:64] / 255 - np.array(run.dataset.mean)) / np.array(run.dataset.std)
    np.testing.assert_allclose(batch["image"], want, atol=1e-5)
    again = load_run(path, config=run.config, devices=ONE)
    assert again.dataset.image_shape == (12, 12, 1)
    accuracy = run.evaluate()["accuracy"]
    assert (
        main.main(["main", "--mode=eval", f"--workdir={path}", "--config.eval.image_size=12"]) == 0
    )
    printed = capsys.readouterr().out
    assert "digits/test at step 1, images of 12x12" in printed
    table = dict(line.split()[:2] for line in printed.partition("\n\n")[0].splitlines())
    assert float(table["accuracy"]) == pytest.approx(accuracy, abs=1e-3)


def test_a_training_run_evaluates_at_its_size_and_trains_at_the_other():
    setup = setups.prepare(small(**{"eval.image_size": 12}), ONE)
    assert setup.dataset.image_shape == (16, 16, 1)
    batch = next(iter(setup.evaluation_input("test")))
    assert batch["image"].shape == (64, 12, 12, 1)
    assert "train" not in setup.resized.splits  # nor is it resized
    shapes = jax.eval_shape(setup.inputs.batch, setup.inputs.arrays(0), 0, jax.random.key(0))
    assert shapes["image"].shape == (64, 16, 16, 1)
    assert setups.prepare(small(**{"eval.image_size": 16}), ONE).resized is None


def test_streamed_images_are_decoded_at_the_size_evaluated():
    fields = {"data.name": "fake", "data.stream": True, "data.workers": 0, "data.fake_size": 128}
    config = small(**fields, **{"eval.image_size": 12})
    for setup in (setups.prepare(config, ONE), setups.prepare_evaluation(config, ONE)):
        batch = next(iter(setup.evaluation_input("test")))
        assert batch["image"].shape == (64, 12, 12, 3)
        assert float(batch["mask"].sum()) == 32


@flax.struct.dataclass
class Output:
    logits: jax.Array


class Flat(nn.Module):
    """A linear layer on all pixels: made for one size."""

    @nn.compact
    def __call__(self, images, train=False):
        return Output(logits=nn.Dense(3)(images.reshape(len(images), -1)))


def test_a_network_that_cannot_take_a_size_says_so():
    @dataclasses.dataclass(frozen=True)
    class FlatFamily(base.Family):
        pass

    config = small(**{"eval.image_size": 12})
    with pytest.raises(ConfigError, match=r"built for images of 8x8, cannot be given others \("):
        setups._check_takes(config, FlatFamily(Flat()), (8, 8, 1), (12, 12, 1))
    assert setups._check_takes(config, FlatFamily(Flat()), (8, 8, 1), (8, 8, 1)) is None


def test_other_images_of_any_size_are_evaluated_where_a_size_is_given(path, tmp_path, name_classes):
    given = {"data.name": "fake", "data.channels": 1, "data.image_size": 20, "data.fake_size": 40}
    config = small(**given, batch_size=10)
    with pytest.raises(ConfigError, match="eval.image_size evaluates at any size"):
        load_run(path, config=config, devices=ONE)
    config.eval.image_size = 16
    with pytest.raises(ConfigError, match="labels mean something else"):  # sizes are no obstacle
        load_run(path, config=config, devices=ONE)
    shutil.copytree(path, tmp_path / "run")
    name_classes(tmp_path / "run", None)
    run = load_run(tmp_path / "run", config=config, devices=ONE)
    images = data.load(small(**given | {"data.image_size": 16}).data).split("test").images
    # Normalised as the run's own images were.
    want = (images / 255 - np.array(run.dataset.mean)) / np.array(run.dataset.std)
    digits = data.load(small().data)
    np.testing.assert_allclose(run.dataset.mean, digits.mean)
    (batch,) = run.setup.evaluation_input("test")
    np.testing.assert_allclose(batch["image"], want, atol=1e-5)
    logits = run.model.apply(run.variables, batch["image"]).logits
    right = np.mean(np.argmax(logits, 1) == batch["label"])
    assert run.evaluate()["accuracy"] == pytest.approx(right)

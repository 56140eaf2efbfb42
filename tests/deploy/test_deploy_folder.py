"""Folders of deployable networks: round trips of both forms, and what is left alone."""

import dataclasses
import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from deploy_network import CLASSES, IMAGES, PARENT, PREPROCESSING, SHAPE

import branchnets
from branchnets.data.device.augment import normalize
from branchnets.deploy import folder
from branchnets.deploy.classifier import load_classifier
from branchnets.deploy.describe import build_module, describe_module
from branchnets.errors import DataError, DeployError
from branchnets.families.coded import CodedFamily, slim
from branchnets.families.study import Slimmed


@pytest.mark.parametrize("form", ["module", "export"])
def test_both_forms_are_the_masked_full_network(full, written, form, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler", "_Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    classifier = load_classifier(written, form)
    monkeypatch.undo()
    model, variables, schemes = full
    masks = slim.masks_of(slim.keep_of(schemes, CLASSES), model, len(IMAGES))
    pixels = normalize(IMAGES, PREPROCESSING.mean, PREPROCESSING.std)
    logits = jax.jit(model.apply)(variables, pixels, remove=masks).logits
    scores = classifier.scores(IMAGES)
    assert scores.dtype == np.float32 and np.ptp(scores) > 1e-2 * np.abs(logits).max()
    np.testing.assert_allclose(scores, logits[:, CLASSES], rtol=0, atol=1e-5 * np.abs(logits).max())
    # Any number of images, without one looking at another.
    for n in (0, 1, 3):
        np.testing.assert_allclose(classifier.scores(IMAGES[:n]), scores[:n], atol=1e-4)
    many = np.concatenate([IMAGES] * 14)
    assert classifier.scores(many).shape == (70, 2)
    assert (classifier.decide(scores) == (scores >= [0.5, -1.25])).all()
    assert (classifier.model is None) == (form == "export")


def test_exported_for_three_platforms(written):
    from jax import export

    exported = export.deserialize(bytearray((written / folder.PROGRAM).read_bytes()))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    module = exported.mlir_module()
    # The grouped convolutions as they are for CUDA and TPU, and dense ones for CPU.
    assert "feature_group_count = 10" in module and "_platform_index" in module
    assert str(exported.in_avals[0]) == "uint8[b,8,8,3]"
    assert str(exported.out_avals[0]) == "float32[b,2]"
    # The weights are in it once.
    assert len((written / folder.PROGRAM).read_bytes()) < 1.5 * len(
        (written / folder.WEIGHTS).read_bytes()
    )


def test_rebuilt_module_is_the_same(slimmed, written):
    classifier = load_classifier(written)
    assert classifier.model == slimmed.model
    equal = jax.tree.map(lambda a, b: (a == b).all(), classifier.variables, slimmed.variables)
    assert all(jax.tree.leaves(equal))


def test_record(written):
    record = json.loads((written / folder.RECORD).read_text())
    assert record["format"] == "branchnets classifier" and record["format_version"] == 1
    assert record["classes"] == ["cat", "ship"] and record["thresholds"] == [0.5, -1.25]
    assert record["parent"] == PARENT and record["parameters"] == 123
    assert record["preprocessing"]["mean"] == [0.5, 0.4, 0.3]
    assert sorted(f.name for f in written.iterdir()) == sorted(
        [folder.RECORD, folder.WEIGHTS, folder.PROGRAM]
    )


def test_one_class_and_no_threshold(slimmed, tmp_path, full):
    model, variables, schemes = full
    keep = slim.keep_of(schemes, [3])
    one = Slimmed(
        slim.slim_model(model, keep, [3]),
        slim.slim_variables(model, variables, keep, [3]),
        ("cat",), (2.5,), {},
    )  # fmt: skip
    place = folder.write_folder(tmp_path / "one", "coded", one, PREPROCESSING, PARENT)
    record = json.loads((place / folder.RECORD).read_text())
    assert (record["class"], record["threshold"]) == ("cat", 2.5) and "classes" not in record
    assert load_classifier(place).thresholds == (2.5,)
    # Replaced by a network whose largest logit is the answer.
    largest = dataclasses.replace(slimmed, thresholds=None)
    folder.write_folder(place, "coded", largest, PREPROCESSING, PARENT)
    classifier = load_classifier(place)
    assert classifier.thresholds is None and classifier.outputs == ("cat", "ship")
    assert classifier.decide([[1.0, 2.0], [3.0, 0.0]]).tolist() == [1, 0]


def test_what_is_not_such_a_folder_is_left_alone(slimmed, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DeployError, match="is not empty.*choose another --out"):
        folder.write_folder(tmp_path, "coded", slimmed, PREPROCESSING, PARENT)
    with pytest.raises(DeployError, match="is a file"):
        folder.check_folder(tmp_path / "thesis.txt")
    with pytest.raises(DeployError, match="cannot be written"):
        folder.check_folder(tmp_path / "thesis.txt" / "net")
    assert [f.name for f in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_folder_with_files_of_others_is_left_alone(copy):
    folder.check_folder(copy)
    (copy / "notes.txt").write_text("mine")
    with pytest.raises(DeployError, match="left alone"):
        folder.check_folder(copy)


def test_nothing_half_written(slimmed, tmp_path, monkeypatch):
    place = tmp_path / "net"
    folder.write_folder(place, "coded", slimmed, PREPROCESSING, PARENT)
    before = (place / folder.RECORD).read_bytes()

    def full_disk(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.rename", full_disk)
    with pytest.raises(DeployError, match="No space left on device"):
        folder.write_folder(place, "coded", slimmed, PREPROCESSING, {"run": "other"})
    assert (place / folder.RECORD).read_bytes() == before
    assert [f.name for f in tmp_path.iterdir()] == ["net"]


def test_entries_of_its_own_are_not_overwritten(slimmed, tmp_path):
    strange = dataclasses.replace(slimmed, record={"format": "mine"})
    with pytest.raises(ValueError, match="'format'"):
        folder.write_folder(tmp_path / "net", "coded", strange, PREPROCESSING, PARENT)


def test_images_that_do_not_fit(written):
    classifier = load_classifier(written)
    for wrong in (IMAGES[:, :7], IMAGES[0], IMAGES.astype(np.float32)):
        with pytest.raises(DataError, match=r"takes uint8 images of shape \[n, 8, 8, 3\]"):
            classifier.scores(wrong)


def test_describe_round_trip():
    for name, overrides in [
        ("coded_resnext_digits", {"dtype": "bfloat16", "bn_group_size": 4}),
        ("coded_resnext50_32x4d_imagenet", {"normalize": False}),
    ]:
        model = branchnets.create_model(name, **overrides)
        text = json.dumps(describe_module(model, CodedFamily.modules))
        assert build_module(json.loads(text), CodedFamily.modules) == model
    with pytest.raises(TypeError, match="CodedBlockSpec is not among"):
        describe_module(model, CodedFamily.modules[:1])
    with pytest.raises(TypeError, match="cannot be written"):
        describe_module(len, CodedFamily.modules)


@pytest.mark.tpu_compile
def test_the_exported_program_compiles_for_a_tpu(written):
    pytest.importorskip("libtpu")
    from jax import export
    from jax.experimental import topologies

    exported = export.deserialize(bytearray((written / folder.PROGRAM).read_bytes()))
    topology = topologies.get_topology_desc(platform="tpu", topology_name="v2:2x2")
    device = jax.sharding.SingleDeviceSharding(topology.devices[0])
    images = jax.ShapeDtypeStruct((8, *SHAPE), jnp.uint8, sharding=device)
    lowered = jax.jit(exported.call).trace(images).lower(lowering_platforms=("tpu",))
    compiled = lowered.compile()
    # The form was chosen when it was compiled: nothing is left to choose when it runs.
    assert " conditional(" not in compiled.as_text()
    assert compiled.out_info.shape == (8, 2) and compiled.cost_analysis()["flops"] > 0

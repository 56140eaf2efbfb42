"""Folders of deployable networks: round trips of both forms, and everything that can be wrong."""

import dataclasses
import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import branchnets
from branchnets.data.augment import normalize
from branchnets.deploy import folder, weights
from branchnets.deploy.classifier import load_classifier
from branchnets.deploy.describe import build_module, describe_module
from branchnets.deploy.preprocess import Preprocessing
from branchnets.errors import ConfigError, DataError, DeployError
from branchnets.families.coded import CodedFamily, slim
from branchnets.families.coded.codes import load_scheme
from branchnets.families.study import Slimmed

SHAPE = (8, 8, 3)
PREPROCESSING = Preprocessing(SHAPE, SHAPE, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
PARENT = {"run": "some_run", "model": "coded_resnext_digits", "step": 7}
CLASSES = (3, 8)
IMAGES = np.random.default_rng(0).integers(0, 256, (5, *SHAPE), np.uint8)


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def written(slimmed, tmp_path_factory):
    place = tmp_path_factory.mktemp("deploy") / "net"
    return folder.write_folder(place, "coded", slimmed, PREPROCESSING, PARENT)


@pytest.fixture
def copy(written, tmp_path):
    """A copy of the folder, to be damaged."""
    for file in written.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def change(place, **entries):
    file = place / folder.RECORD
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


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


def test_no_folder(tmp_path):
    with pytest.raises(DeployError, match="holds no network: it has no classifier.json"):
        load_classifier(tmp_path / "none")
    (tmp_path / folder.RECORD).write_text("{")
    with pytest.raises(DeployError, match="cannot be read"):
        load_classifier(tmp_path)
    (tmp_path / folder.RECORD).write_text("[]")
    with pytest.raises(DeployError, match="does not describe a network"):
        load_classifier(tmp_path)


def test_made_by_a_newer_version(copy):
    change(copy, format_version=2, branchnets="9.0")
    with pytest.raises(DeployError, match="made by branchnets 9.0.*up to version 1. Upgrade"):
        load_classifier(copy)


@pytest.mark.parametrize(("form", "name"), [("module", folder.WEIGHTS), ("export", folder.PROGRAM)])
def test_missing_truncated_and_changed_files(copy, form, name):
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[:-100])
    with pytest.raises(DeployError, match=f"{name} is cut short"):
        load_classifier(copy, form)
    (copy / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DeployError, match=f"{name} is damaged"):
        load_classifier(copy, form)
    (copy / name).unlink()
    with pytest.raises(DeployError, match=f"{name} is missing"):
        load_classifier(copy, form)


def test_an_unreadable_program(copy):
    change(copy, files={folder.PROGRAM: folder._fingerprint(b"nonsense")})
    (copy / folder.PROGRAM).write_bytes(b"nonsense")
    with pytest.raises(DeployError, match="model.jaxexport cannot be read by JAX.*form='module'"):
        load_classifier(copy, "export")


def test_weights_that_do_not_fit(slimmed):
    def load(variables):
        return weights.from_bytes(weights.to_bytes(variables), slimmed.model, SHAPE)

    params, stats = slimmed.variables["params"], slimmed.variables["batch_stats"]
    kernel = params["head"]["linear"]["kernel"]
    wrong = {"params": {**params, "head": {"linear": {"kernel": kernel.T}}}, "batch_stats": stats}
    with pytest.raises(
        DeployError, match=r"params/head/linear/kernel is float32 \(2, 256\).*256, 2"
    ):
        load(wrong)
    with pytest.raises(DeployError, match="lacks batch_stats/stage2"):
        load({"params": params})
    with pytest.raises(DeployError, match="has other/x, which the network does not"):
        load({**slimmed.variables, "other": {"x": kernel}})
    with pytest.raises(DeployError, match="weights.safetensors cannot be read"):
        weights.from_bytes(b"\x00" * 20, slimmed.model, SHAPE)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"module": {"type": "Popen", "fields": {}}}, "a part 'Popen'.*Upgrade"),
        ({"module": {"type": "CodedResNeXt", "fields": {"colour": 1}}}, "a field 'colour'"),
        ({"module": {"type": "CodedResNeXt", "fields": {}}}, "cannot be built"),
        ({"module": {"thing": 1}}, "no module"),
        ({"module": 3}, "describes no network"),
        ({"thresholds": [1.0]}, "2 outputs, 1 thresholds"),
        ({"outputs": None}, "misstates"),
        ({"preprocessing": {"resize": "stretch"}}, "resized by 'stretch'.*Upgrade"),
        ({"preprocessing": {}}, "preprocessing cannot be read"),
        ({"files": {}}, "says nothing of weights.safetensors"),
    ],
)
def test_a_record_that_makes_no_sense(copy, entry, message):
    change(copy, **entry)
    with pytest.raises(DeployError, match=message):
        load_classifier(copy)


def test_an_unknown_family_or_form(copy):
    with pytest.raises(ConfigError, match="unknown form 'onnx'"):
        load_classifier(copy, "onnx")
    change(copy, family="codded")
    with pytest.raises(ConfigError, match="Did you mean 'coded'"):
        load_classifier(copy)


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

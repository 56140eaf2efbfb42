"""Folders that are damaged, of a newer version or nonsense: a message, never a traceback."""

import json

import pytest
from deploy_network import SHAPE

from branchnets.deploy import weights
from branchnets.deploy.classifier import load_classifier
from branchnets.deploy.folder import PROGRAM, RECORD, WEIGHTS, _fingerprint
from branchnets.errors import ConfigError, DeployError, UserError


def change(place, **entries):
    file = place / RECORD
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


@pytest.mark.parametrize(
    "path, value",
    [
        ("family", []),
        ("module/type", []),
        ("module/fields/num_classes", "x"),
        ("module/fields/stages", 3),
        ("preprocessing/mean", [0.1]),
        ("preprocessing/std", [0.2, 0.0, 0.2]),
        ("preprocessing/content_shape", [0, 8, 3]),
        ("preprocessing/content_shape", [8, 8, 1]),
        ("preprocessing/content_shape", [16, 4, 3]),
    ],
)
def test_nonsense_is_refused(copy, path, value):
    record = json.loads((copy / RECORD).read_text())
    *parents, last = path.split("/")
    inner = record
    for name in parents:
        inner = inner[name]
    assert last in inner
    inner[last] = value
    (copy / RECORD).write_text(json.dumps(record))
    with pytest.raises(UserError):
        load_classifier(copy)


def test_no_folder(tmp_path):
    with pytest.raises(DeployError, match="holds no network: it has no classifier.json"):
        load_classifier(tmp_path / "none")
    (tmp_path / RECORD).write_text("{")
    with pytest.raises(DeployError, match="cannot be read"):
        load_classifier(tmp_path)
    (tmp_path / RECORD).write_text("[]")
    with pytest.raises(DeployError, match="does not describe a network"):
        load_classifier(tmp_path)


def test_made_by_a_newer_version(copy):
    change(copy, format_version=2, branchnets="9.0")
    with pytest.raises(DeployError, match="made by branchnets 9.0.*up to version 1. Upgrade"):
        load_classifier(copy)


@pytest.mark.parametrize(("form", "name"), [("module", WEIGHTS), ("export", PROGRAM)])
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
    change(copy, files={PROGRAM: _fingerprint(b"nonsense")})
    (copy / PROGRAM).write_bytes(b"nonsense")
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

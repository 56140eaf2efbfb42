import json

import pytest

from branchnets.tools.describe import main


def run(capsys, *argv):
    main(argv)
    return capsys.readouterr().out


def failure(capsys, *argv):
    with pytest.raises(SystemExit) as exit_:
        main(argv)
    assert exit_.value.code == 2
    return capsys.readouterr().err


def test_table(capsys):
    lines = run(capsys, "resnext_digits").splitlines()
    assert lines[0] == "resnext_digits: 10 classes, images 16x16x1"
    rows = {line.split()[0]: line.split()[1:] for line in lines[2:] if line}
    assert rows["stem"] == ["16x16x32", "352", "73,728"]
    assert [name for name in rows if name.startswith("st")] == [
        "stage",
        "stem",
        "stage2",
        "stage3",
        "stage4",
    ]
    counts = [
        [int(cell.replace(",", "")) for cell in rows[name][-2:]]
        for name in rows
        if name in ("stem", "stage2", "stage3", "stage4", "head", "total")
    ]
    assert [sum(column) for column in zip(*counts[:-1], strict=True)] == counts[-1]


def test_json_and_options(capsys):
    plain = json.loads(run(capsys, "resnext_digits", "--json"))
    other = json.loads(
        run(capsys, "resnext_digits", "--json", "--num_classes=7", "--image_size=8", "--depth=2")
    )
    assert (plain["model"], plain["num_classes"], plain["input_shape"]) == (
        "resnext_digits",
        10,
        [16, 16, 1],
    )
    assert plain["parameters"] - other["parameters"] == 3 * 256
    convolutions = [d["macs"] - d["num_classes"] * 256 for d in (plain, other)]
    assert convolutions[0] == 4 * convolutions[1]
    assert "stage3/block1" in [row["name"] for row in other["stages"]]


def test_bad_input(capsys):
    error = failure(capsys, "coded_resnxt_digits")
    assert "Did you mean 'coded_resnext_digits'" in error and "resnet50" in error
    assert "coded_resnext_digits" in failure(capsys)  # none given: the names there are
    assert "--depht" in failure(capsys, "resnet50", "--depht=2")
    assert "--config=FILE" in failure(capsys, "resnet50", "--config.seed=1")
    assert "no config file" in failure(capsys, "--config=configs/none_such.py")
    assert "num_classes" in failure(capsys, "resnet50", "--num_classes=0")
    assert "image_size" in failure(capsys, "resnet50", "--image_size=0")


def test_config(capsys, tmp_path):
    file = tmp_path / "small.py"
    file.write_text(
        "from branchnets.engine import config as configs\n"
        "def get_config():\n"
        "  c = configs.base()\n"
        "  c.model.name = 'resnext_digits'\n"
        "  c.data.name = 'digits'\n"
        "  return c\n"
    )
    found = json.loads(run(capsys, f"--config={file}", "--config.data.image_size=16", "--json"))
    assert found["input_shape"] == [16, 16, 1]
    assert found == json.loads(run(capsys, "resnext_digits", "--json"))
    assert "unknown dataset 'digit'" in failure(
        capsys, f"--config={file}", "--config.data.name=digit"
    )
    assert "Did you mean" in failure(capsys, f"--config={file}", "--config.data.nam=fake")

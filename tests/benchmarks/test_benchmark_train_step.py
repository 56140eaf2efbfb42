import json

import pytest

from benchmarks import train_step


def test_json(tiny, capsys):
    train_step.main(["tiny", "--batch=4", "--rounds=2", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert list(document["models"]) == ["tiny"]
    figures = document["models"]["tiny"]
    assert figures["examples_per_s"] == pytest.approx(4 / figures["median_s"])
    # At least the parameters and their momentum, float32.
    assert figures["peak_bytes"] > 2 * 4 * (9 * 4 + 4 * 4 + 9 * 4 * 4 + 4 * 8 + 4 * 8)
    assert figures["compile_s"] > 0
    assert document["setup"]["size"] == "4x4" and document["setup"]["clock"] == "wall"


def test_variants_of_one_model_in_one_run(tiny, capsys):
    words = ["tiny", "tiny:stem_channels=64"]
    train_step.main([*words, "--batch=2", "--rounds=1", "--clock=processor", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert list(document["models"]) == words and document["setup"]["clock"] == "processor"
    small, large = (document["models"][word]["peak_bytes"] for word in words)
    assert small < large


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["resnext_digit"], "Did you mean 'resnext_digits'"),
        (["resnext_digits:bn_momentun=0.5"], "Did you mean 'bn_momentum'"),
        (["maskconnect_digits:fan_in=nine"], "fan_in='nine' is of another type"),
        (["maskconnect_digits:fan_in=9"], "can read 1 to 8 others"),
        (["maskconnect_digits:fan_in"], "needs a value"),
        (["maskconnect_digits:fan_in=1,fan_in=2"], "given twice"),
        (["resnext_digits", "resnet50"], "--size"),
        (["coded_resnext_digits", "--classes=7"], "7 classes"),
    ],
)
def test_bad_input(argv, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        train_step.main(argv)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err

import json
from functools import partial

import pytest

from benchmarks import train_step
from branchnets import registry
from branchnets.families.plain.resnet import ResNet, bottleneck_stages


def test_json(monkeypatch, capsys):
    build = partial(ResNet, stages=bottleneck_stages((1,), 1, 4, channels=8), stem_channels=4)
    entry = registry.Entry(build, "plain", (4, 4, 1), 3)
    registry.entry("resnet50")  # loads the registered ones
    monkeypatch.setitem(registry._ENTRIES, "tiny", entry)
    train_step.main(["tiny", "--batch=4", "--rounds=2", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert list(document["models"]) == ["tiny"]
    figures = document["models"]["tiny"]
    assert figures["examples_per_s"] == pytest.approx(4 / figures["median_s"])
    # At least the parameters and their momentum, float32.
    assert figures["peak_bytes"] > 2 * 4 * (9 * 4 + 4 * 4 + 9 * 4 * 4 + 4 * 8 + 4 * 8)
    assert figures["compile_s"] > 0
    assert document["setup"]["size"] == "4x4"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["resnext_digit"], "Did you mean 'resnext_digits'"),
        (["resnext_digits", "resnet50"], "--size"),
        (["coded_resnext_digits", "--classes=7"], "7 classes"),
    ],
)
def test_bad_input(argv, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        train_step.main(argv)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err

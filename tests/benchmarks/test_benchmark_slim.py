import json

import pytest

from benchmarks import slim
from branchnets.counting import describe


def test_digits(capsys):
    slim.main(["coded_resnext_digits", "--batch=2", "--rounds=2", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["taken_out"] == "class 0"
    assert found["parameters"]["slim"] < 0.5 * found["parameters"]["full"]
    assert [row["batch"] for row in found["times"]] == [2]
    assert found["times"][0]["ratio"] > 0
    assert found["layer_macs_ratio"] == pytest.approx(0.586, abs=1e-3)
    slim.show(found)
    assert f"{found['macs_ratio']:.3f}" in capsys.readouterr().out


def test_a_pruned_network(capsys):
    slim.main(["maskconnect_digits:branches=4,connectivity=random,fan_in=1", "--batch=2",
               "--rounds=1", "--json"])  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    counts = [int(word) for word in found["taken_out"].removeprefix("branches ").split()]
    assert len(counts) == 6 and counts[-1] == 4 and min(counts) < 4
    assert found["parameters"]["slim"] < found["parameters"]["full"]
    assert found["macs_ratio"] < 1 and found["layer_macs_ratio"] < 1


def test_layers_alone_leave_out_the_mixing():
    pair = slim.untrained("maskconnect_digits:connectivity=ones", 0)
    model, _ = pair.networks["full"]
    mixed = 0
    side, channels, before = 16, 16, None  # of what a module reads
    for spec in model.modules().values():
        if before is not None:
            mixed += side**2 * before * spec.branches * channels
        side, channels, before = side // spec.stride, spec.channels, spec.branches
    shape = (16, 16, 1)
    assert describe(model, shape).macs - pair.family.layer_macs(model, shape) == mixed > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resnext_digits"], "family 'plain' has no branches with a meaning"),
        (["maskconnect_digits"], "still being learned"),
        (["maskconnect_digits:connectivity=full"], "every branch is read"),
        (["maskconnect_digits:conectivity=full"], "Did you mean 'connectivity'"),
        (["maskconnect_digits", "--run=runs/x"], "not both"),
        (["--run=no_such_run"], "no run"),
        (["coded_resnext_digits", "--class=10"], "unknown class '10'"),
        (["coded_resnext_digits", "--rounds=0"], "at least 1"),
        (["coded_resnext_digit"], "Did you mean 'coded_resnext_digits'"),
    ],
)
def test_bad_input(capsys, words, message):
    with pytest.raises(SystemExit) as stop:
        slim.main(words)
    assert stop.value.code == 2 and message in capsys.readouterr().err

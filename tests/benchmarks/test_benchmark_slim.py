import json

import pytest

from benchmarks import slim


def test_digits(capsys):
    slim.main(["coded_resnext_digits", "--batch=2", "--rounds=2", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"]["slim"] < 0.5 * found["parameters"]["full"]
    assert [row["batch"] for row in found["times"]] == [2]
    assert found["times"][0]["ratio"] > 0
    assert found["layer_macs_ratio"] == pytest.approx(0.586, abs=1e-3)
    slim.show(found)
    assert f"{found['macs_ratio']:.3f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resnext_digits"], "no coded network"),
        (["coded_resnext_digits", "--class=10"], "--class is 0 to 9"),
        (["coded_resnext_digits", "--rounds=0"], "at least 1"),
        (["coded_resnext_digit"], "Did you mean 'coded_resnext_digits'"),
    ],
)
def test_bad_input(capsys, words, message):
    with pytest.raises(SystemExit) as stop:
        slim.main(words)
    assert stop.value.code == 2 and message in capsys.readouterr().err

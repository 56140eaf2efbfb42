import json
import subprocess
import sys

import pytest

from benchmarks import timing

RESULTS = {
    "first": timing.result([2.0, 1.0, 9.0], batch=8, compile_s=3.0, peak_bytes=2_000_000_000),
    "second": timing.result([5.0, 5.0], batch=8, compile_s=None, peak_bytes=None),
}
TIMES = {"first": [2.0, 1.0, 9.0], "second": [5.0, 5.0]}


def test_models_take_turns():
    calls = []
    steps = {name: lambda name=name: calls.append(name) for name in ("a", "b")}
    times = timing.in_turn(steps, rounds=3, warmup=1)
    assert calls == ["a", "b"] * 4
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3}
    assert all(second >= 0 for seconds in times.values() for second in seconds)


def test_result_is_a_median():
    assert RESULTS["first"] == timing.Result(2.0, 4.0, 3.0, 2_000_000_000)


def test_json_document(capsys):
    timing.show(RESULTS, {"batch": 8}, True, TIMES)
    document = json.loads(capsys.readouterr().out)
    assert document["models"] == {
        "first": {
            "median_s": 2.0,
            "examples_per_s": 4.0,
            "compile_s": 3.0,
            "peak_bytes": 2_000_000_000,
            "macs": None,
            "times_s": [2.0, 1.0, 9.0],
        },
        "second": {
            "median_s": 5.0,
            "examples_per_s": 1.6,
            "compile_s": None,
            "peak_bytes": None,
            "macs": None,
            "times_s": [5.0, 5.0],
        },
    }
    assert document["setup"]["batch"] == 8


def test_table_has_ratios_to_the_first_model(capsys):
    timing.show(RESULTS, {"batch": 8}, False, TIMES)
    first, second = (line.split() for line in capsys.readouterr().out.splitlines()[-2:])
    assert first == ["first", "2.0000", "1.0000-9.0000", "4.0", "3.0", "2.000", "1.000"]
    assert second == ["second", "5.0000", "5.0000-5.0000", "1.6", "-", "-", "2.500"]


def test_one_size_for_all():
    shapes = {"a": (32, 32, 3), "b": (160, 160, 3)}
    assert timing.common_size(shapes, 64) == (64, 64)
    assert timing.common_size({"a": (32, 16, 3)}, None) == (32, 16)
    with pytest.raises(ValueError, match=r"a 32x32, b 160x160.*--size"):
        timing.common_size(shapes, None)


def test_yardstick_side_needs_no_jax():
    code = "import sys, benchmarks.timing; print([m for m in sys.modules if 'jax' in m])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--batch=0", "m"], "a positive whole number, not '0'"),
        (["--rounds=-1", "m"], "a positive whole number, not '-1'"),
        (["--size=²", "m"], "a positive whole number, not '²'"),  # a digit that is no number
        ([], "required: MODEL"),
    ],
)
def test_bad_options(argv, message, capsys):
    with pytest.raises(SystemExit):
        timing.parser("x", "").parse_args(argv)
    assert message in capsys.readouterr().err


def test_why_a_process_ended():
    assert timing.why_ended(3, "") == "exit status 3"
    assert timing.why_ended(1, "x: error: no such model\n\n") == "no such model"
    for status in (-9, 137):
        assert "lack of memory" in timing.why_ended(status, "round 1: a 0.1 s")
    assert timing.why_ended(-6, "round 1: a 0.1 s") == "ended by SIGABRT"

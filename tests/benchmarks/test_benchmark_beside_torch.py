"""Two benchmarks that take turns, with stand-ins for both."""

import sys

import pytest

from benchmarks import beside_torch

# Says when it works, to a file that both share; "torch" needs twice the other's seconds.
STAND_IN = """
import sys
from benchmarks import timing
name, path, factor = sys.argv[1:]
now = 0.0
def step():
    global now
    now += float(factor)
    with open(path, "a") as file:
        file.write(name + " ")
timing.in_turn({"model": step}, rounds=2, warmup=1, clock=lambda: now)
"""


def side(*words):
    return beside_torch.Side([sys.executable, "-c", STAND_IN, *words])


def test_the_sides_take_turns_and_their_times_are_compared(tmp_path):
    path = tmp_path / "order"
    ours, torch = side("ours", str(path), "1"), side("torch", str(path), "2")
    beside_torch.take_turns(ours, torch)
    assert path.read_text() == "ours torch " * 3
    compared = beside_torch.compare(ours.times["model"], torch.times["model"])
    assert compared == {
        "branchnets_s": 1,
        "torch_s": 2,
        "torch_per_branchnets": 2,
        "least": 2,
        "most": 2,
    }


def test_a_side_that_fails_is_an_error_with_its_command(capsys):
    with pytest.raises(SystemExit) as stopped:
        beside_torch.main(["resnext_digits", "--torch-python=/nowhere/python"])
    assert stopped.value.code == 2
    assert "/nowhere/python" in capsys.readouterr().err
    failing = beside_torch.Side([sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(RuntimeError, match="ended with 3"):
        failing.wait()

"""Two benchmarks that take turns, with stand-ins for both."""

import json
import sys

import pytest

from benchmarks import beside_torch, timing

# Says when it works, to a file that both share; its steps take the seconds that it is told.
STAND_IN = """
import sys
from benchmarks import timing
name, path, *seconds = sys.argv[1:]
seconds, now = [float(each) for each in seconds], 0.0
def step():
    global now
    now += seconds.pop(0)
    with open(path, "a") as file:
        file.write(name + " ")
times = timing.in_turn({"model": step}, rounds=2, warmup=1, clock=lambda: now)
results = {"model": timing.result(times["model"], 8, None, 5)}
timing.show(results, {"of": name}, True, times)
"""


def side(*words):
    return beside_torch.Side(words[0], sys.executable, ["-c", STAND_IN, *words])


def test_the_sides_take_turns_and_their_exact_times_are_compared(tmp_path):
    path = tmp_path / "order"
    ours = side("ours", str(path), "9", "0.00015", "1")
    torch = side("torch", str(path), "9", "0.0003", "4")
    beside_torch.take_turns(ours, torch)
    assert path.read_text() == "ours torch " * 3
    found = beside_torch.compare(ours.document(), torch.document())
    for each in (ours, torch):
        each.stop()
    ratio = found["compared"]["model"]
    assert ratio == {name: pytest.approx(value) for name, value in
                     (("median", 3), ("least", 2), ("most", 4))}  # fmt: skip
    assert found["setup"]["of"] == "ours" and found["torch"]["setup"]["of"] == "torch"
    assert found["models"]["model"]["times_s"] == pytest.approx([0.00015, 1], rel=1e-9)
    assert found["torch"]["models"]["model"]["median_s"] == pytest.approx(2.00015)


def test_what_is_asked_of_each_side(monkeypatch, capsys):
    asked = []

    class Side:
        waits = False

        def __init__(self, label, python, words, **variables):
            asked.append((python, words))
            self.seconds = {"PyTorch": 6.0, "branchnets": 2.0}[label]

        def document(self):
            return {"models": {"m": {"times_s": [self.seconds]}}}

        def stop(self):
            pass

    monkeypatch.setattr(beside_torch, "Side", Side)
    words = ["m", "--inference", "--gpu", "--dtype=bfloat16", "--torch-python=p", "--json"]
    beside_torch.main(words)
    (python, theirs), (_, ours) = asked
    assert python == "p" and {"--device=cuda", "--compile", "--inference"} <= set(theirs)
    assert ours[:3] == ["-m", "benchmarks.inference", "m"] and "--inference" not in ours
    assert "--dtype=bfloat16" in ours and "--dtype=bfloat16" in theirs
    assert json.loads(capsys.readouterr().out)["compared"]["m"]["median"] == 3


def test_a_side_that_fails_is_an_error_with_its_reason(capsys):
    with pytest.raises(SystemExit) as stopped:
        beside_torch.main(["resnext_digits", "--torch-python=/nowhere/python"])
    assert stopped.value.code == 2
    assert "/nowhere/python" in capsys.readouterr().err
    program = "import sys; sys.exit('usage\\nx: error: needs 9 GB more')"
    with pytest.raises(RuntimeError, match="^PyTorch: needs 9 GB more$"):
        beside_torch.Side("PyTorch", sys.executable, ["-c", program])


WAITS = f"import sys; print({timing.READY!r}, file=sys.stderr, flush=True)"


def test_a_side_that_dies_while_it_waits_is_an_error_with_its_reason():
    program = f"{WAITS}; sys.exit('the device is lost')"
    waiting = beside_torch.Side("torch", sys.executable, ["-c", program])
    waiting._process.wait()
    with pytest.raises(RuntimeError, match="^torch: the device is lost$"):
        waiting.go()
    waiting.stop()


def test_a_side_without_a_result_is_an_error():
    silent = beside_torch.Side("torch", sys.executable, ["-c", f"{WAITS}; input(); print('hello')"])
    beside_torch.take_turns(silent)
    with pytest.raises(RuntimeError, match="^torch printed no result: Expecting value"):
        silent.document()
    silent.stop()

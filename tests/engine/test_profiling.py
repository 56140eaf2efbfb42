"""Traces of some steps of a run, and the tool that reads them."""

from __future__ import annotations

import re
import types

import jax
import pytest

from branchnets.engine import config as configs
from branchnets.engine import profiling
from branchnets.engine import train as training
from branchnets.errors import ConfigError
from branchnets.tools import profile as tool

ONE = jax.devices()[:1]


@pytest.mark.parametrize("text", ["", "5", "5:", "a:b", "5:5", "7:3", "-1:3", "1:2:3", "0.5:2"])
def test_what_is_no_stretch_of_steps_is_refused(tiny, text):
    with pytest.raises(ConfigError, match="START:STOP.*such as --config.profile=20:25"):
        configs.validate(tiny(profile=text), 1)
    configs.validate(tiny(profile=text), 1, train=False)  # an evaluation traces nothing


def test_a_run_goes_on_with_another_stretch(tiny):
    assert configs.diff(tiny(), tiny(profile="1:3")) == []


@pytest.fixture
def calls(monkeypatch):
    """What the profiler was asked for."""
    found = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda *_, **__: found.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: found.append("stop"))
    return found


def steps_of(calls, folder, asked, begin, end, first=lambda number: True):
    """Runs the steps of a made-up run; returns what was done and what was said."""
    said = []
    programs = [types.SimpleNamespace(as_text=lambda text=t: text) for t in ("one", "two")]
    trace = profiling.Profile(
        asked, folder, begin=begin, end=end, drain=lambda: calls.append("drain"), say=said.append
    )
    for number in range(begin, end):
        with trace.step(number, programs[not first(number)]):
            calls.append(number)
    trace.close()
    return calls, said


def test_the_devices_are_idle_at_both_ends(calls, tmp_path):
    done, said = steps_of(calls, tmp_path / "p", "2:4", 0, 6)
    assert done == [0, 1, "drain", "start", 2, 3, "drain", "stop", 4, 5]
    assert said == [f"traced steps 2:4 (2) into {tmp_path / 'p'}"]
    assert (tmp_path / "p" / profiling.PROGRAM).read_text() == "one"


@pytest.mark.parametrize(
    ("asked", "begin", "traced", "said"),
    [
        ("4:9", 0, [4, 5], "profile=4:9: steps 0 to 6 are run, so only steps 4:6 (2) will"),
        ("2:5", 4, [4], "steps 4 to 6 are run, so only steps 4:5 (1) will"),
        ("1:3", 4, [], "steps 4 to 6 are run, so nothing will be traced"),
        ("6:8", 0, [], "nothing will be traced"),
        ("3:5", 0, [3], "the trace ends where the phase does"),
    ],
)
def test_steps_that_are_not_run_are_told(calls, tmp_path, asked, begin, traced, said):
    first = (lambda number: number < 4) if asked == "3:5" else (lambda number: True)
    done, lines = steps_of(calls, tmp_path, asked, begin, 6, first)
    inside = done[done.index("start") + 1 : done.index("stop") - 1] if "start" in done else []
    assert inside == traced and done.count("start") == done.count("stop") == bool(traced)
    assert said in lines[0]


def test_a_trace_that_cannot_be_written_ends_no_run(calls, tmp_path):
    (tmp_path / "p").write_text("a file")
    _, said = steps_of(calls, tmp_path / "p", "2:4", 0, 6)
    assert "cannot be written" in said[0] and len(said) == 1


def test_a_trace_of_a_streamed_run_names_the_modules(tiny, tmp_path, capsys):
    config = tiny(**{"data.stream": True, "data.workers": 0, "epochs": 1, "profile": "1:3"})
    assert training.train(config, str(tmp_path), ONE) == 0
    assert "traced steps 1:3 (2)" in capsys.readouterr().err

    assert tool.main([str(tmp_path), "--depth=3", "--top=3"]) == 0
    head, parts, longest = capsys.readouterr().out.split("\n\n")
    steps, wall, busy, waited = map(float, re.findall(r"[\d.]+", head))
    assert steps == 2 and wall > 0 and busy > 0 and 0 <= waited < wall
    rows = {line.split()[0]: line.split()[1:] for line in parts.splitlines()[2:]}
    for name in ("stage2/block0/branch_conv", "stage4/block0"):
        assert float(rows[name][0]) > 0 and float(rows[name][1]) > 0, name
    assert {"input", "update", "loss"} <= rows.keys()
    assert sum(float(cells[-1]) for cells in rows.values()) == pytest.approx(100, abs=1)
    assert len(longest.strip().splitlines()) == 2 + 3


def test_a_fusion_without_a_name_is_called_after_what_it_holds():
    text = """HloModule jit_run, is_scheduled=true

%held (p: f32[]) -> f32[] {
  %p = f32[] parameter(0)
  %m = f32[] multiply(%p, %p), metadata={op_name="jit(run)/jvp(loss)/Net/a/mul" source_line=1}
  ROOT %s = f32[] subtract(%m, %m), metadata={op_name="jit(run)/jvp(loss)/Net/a/mul"}
}

ENTRY %main (q: f32[]) -> f32[] {
  %q = f32[] parameter(0), metadata={op_name="state.params[\\'params\\'][\\'a\\'][\\'kernel\\']"}
  ROOT %fusion.1 = f32[] fusion(%q), kind=kLoop, calls=%held
}
"""
    program = tool.read_program(text)
    assert program.module == "jit_run" and program.paths == {("a",)}
    assert tool.part(program.names["fusion.1"], program.paths, 2) == ("a", "forward")


def test_what_devices_send_each_other_has_a_row_of_its_own():
    """The gradients of all modules go in one operation, which has the name of one of them."""
    text = """HloModule jit_run

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%sent (p: f32[]) -> f32[] {
  %p = f32[] parameter(0)
  ROOT %gather = f32[] all-gather(%p), dimensions={0}
}

ENTRY %main (q: f32[]) -> f32[] {
  %q = f32[] parameter(0), metadata={op_name="state.params[\\'params\\'][\\'a\\'][\\'kernel\\']"}
  %r = f32[] all-reduce(%q), to_apply=%add, metadata={op_name="jit(run)/jvp(loss)/Net/a/dot"}
  %f = f32[] fusion(%r), kind=kCustom, calls=%sent
  ROOT %m = f32[] multiply(%f, %f), metadata={op_name="jit(run)/jvp(loss)/Net/a/mul"}
}
"""
    program = tool.read_program(text)
    trace = tool.Trace(1, 10.0, 0.0, {"r": 5.0, "f": 2.0, "m": 3.0})
    rows = list(tool.by_part(trace, program, 2))
    assert rows == [("(exchange)", 7.0, 0.0, 70.0), ("a", 3.0, 0.0, 30.0)]
    assert tool._origin("jit(run)/(a/dot:b/dot:c/mul)") == "jit(run)/(a/dot and 2 others"


def test_of_several_processes_the_first_is_read(tmp_path):
    for process, date in (("process0", "1"), ("process1", "2"), ("process10", "2"), (".", "0")):
        file = tmp_path / "profile" / process / "plugins/profile" / date / "host.xplane.pb"
        file.parent.mkdir(parents=True)
        file.touch()
    found = tool.newest(str(tmp_path))
    assert found.folder == tmp_path / "profile/process0" and found.file.parent.name == "1"
    assert [folder.name for folder in found.others] == ["process1", "process10"]
    other = tool.newest(str(tmp_path / "profile/process1"))
    assert other.folder.name == "process1" and not other.others


def test_a_run_without_a_trace(tmp_path, capsys):
    assert tool.main([str(tmp_path)]) == 2
    assert "holds no trace. Train with --config.profile" in capsys.readouterr().err
    assert tool.main([str(tmp_path / "nope")]) == 2
    assert "there is no folder" in capsys.readouterr().err

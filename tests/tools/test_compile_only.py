"""The command line that compiles for TPUs that are not here; with libtpu, two small networks."""

import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

from branchnets.tools import compile_only

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give --topology=NAME"),
        (["--topology=v2:2x2", "--topology=v22:2x2"], "unknown topology 'v22:2x2'. Did you mean"),
        (["--sweep=v9"], "--sweep=v9: there is v3, v4"),
        (["--topology=v2:2x2", "--config.batch_sise=1"], "batch_size"),
    ],
)
def test_bad_input_is_told(words, message, capsys, monkeypatch):
    monkeypatch.setattr("branchnets.aot.topologies.prepare_environment", lambda: None)
    assert compile_only.main([f"--config={CONFIGS / 'coded_digits.py'}", *words]) == 2
    assert message in capsys.readouterr().err


def test_without_the_compiler_it_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setattr("branchnets.aot.topologies.prepare_environment", lambda: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    words = [f"--config={CONFIGS / 'coded_digits.py'}:smoke", "--topology=v2:2x2"]
    assert compile_only.main(words) == 2
    assert 'pip install "branchnets[tpu]"' in capsys.readouterr().err


@pytest.mark.tpu_compile
@pytest.mark.parametrize("config", ["coded_digits", "maskconnect_digits"])
def test_the_steps_of_a_small_network_on_eight_cores(config):
    pytest.importorskip("libtpu")
    command = [
        *(sys.executable, "-m", "branchnets.tools.compile_only", "--json"),
        *(f"--config={CONFIGS / config}.py:smoke", "--topology=v2:2x2"),
        *("--config.bn_group_size=2", "--config.batch_size=16", "--config.data.fake_size=64"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    steps = {one["step"]: one for one in found}
    assert {name.partition(":")[0] for name in steps} == {"train", "eval"}
    for name, one in steps.items():
        assert one["topology"] == "v2:2x2" and one["fits"] and one["devices"] == 8
        assert one["hbm_bytes"] == 8 * 2**30 > one["peak_bytes"] > one["argument_bytes"] > 0
        assert one["flops"] > 0 and one["bytes_accessed"] > one["argument_bytes"]
        assert {row["kind"] for row in one["collectives"]} == {"all-reduce"}
        reduces = one["collectives"][0]
        if name.startswith("train"):
            # Grouped statistics: the gradients, the running averages and the metrics, no more.
            assert reduces["count"] <= 4
            assert one["parameter_bytes"] * 0.95 < reduces["operand_bytes"]

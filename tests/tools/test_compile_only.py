"""The command line that compiles for TPUs that are not here; with libtpu, two small networks."""

import dataclasses
import importlib.util
import json
import pathlib
import subprocess
import sys

import jax
import pytest

from branchnets.aot import accelerators, study, topologies
from branchnets.aot.cost import cost
from branchnets.aot.steps import Step
from branchnets.engine import config as configs
from branchnets.errors import ConfigError
from branchnets.tools import compile_only

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give --topology=NAME"),
        (["--topology=v2:2x2", "--topology=v22:2x2"], "no generation 'v22' of TPUs here, but v2"),
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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sweep", "--per_device_batch=0"], "a positive whole number, not '0'"),
        (["--sweep", "--per_device_batch=²"], "a positive whole number, not '²'"),
        (["--topology=v2:2x2", "--per_device_batch=4"], "--per_device_batch is for --sweep"),
        (["--sweep", "--step=eval"], "leave out --against and --step"),
    ],
)
def test_flags_that_do_not_go_together_are_told(words, message, capsys):
    # Some are refused by the parser, which exits itself.
    try:
        status = compile_only.main([f"--config={CONFIGS / 'coded_digits.py'}", *words])
    except SystemExit as stopped:
        status = stopped.code
    assert status == 2 and message in capsys.readouterr().err


SMALL = ("--config.bn_group_size=2", "--config.batch_size=16", "--config.data.fake_size=64")


def compiled(config, *words):
    """What the command prints as JSON; no table, not even on standard error."""
    pytest.importorskip("libtpu")
    command = [
        *(sys.executable, "-m", "branchnets.tools.compile_only", "--json"),
        *(f"--config={CONFIGS / config}.py:smoke", *SMALL, *words),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0 and "on each device" not in done.stderr, done.stderr
    return json.loads(done.stdout)


@pytest.mark.tpu_compile
def test_the_steps_of_a_small_network_on_eight_cores():
    found = compiled("maskconnect_digits", "--topology=v2-8")
    steps = {one["step"]: one for one in found}
    assert {name.partition(":")[0] for name in steps} == {"train", "eval"}
    for name, one in steps.items():
        assert one["topology"] == "v2:2x2" and one["fits"] and one["devices"] == 8
        assert one["hbm_bytes"] == 8 * 2**30 > one["usable_bytes"]
        assert one["usable_bytes"] > one["peak_bytes"] > one["argument_bytes"] > 0
        assert one["flops"] > 0 and one["bytes_accessed"] > one["argument_bytes"]
        assert {row["kind"] for row in one["collectives"]} == {"all-reduce"}
        reduces = one["collectives"][0]
        if name.startswith("train"):
            # Grouped statistics: the gradients, the running averages and the metrics, no more.
            assert reduces["times"] <= 4
            assert one["parameter_bytes"] * 0.95 < reduces["operand_bytes"]


@pytest.mark.tpu_compile
def test_coded_against_plain_with_images_changed_on_the_device():
    words = ("--topology=v2:2x2", "--step=train", "--config.augment.randaugment_layers=2")
    coded, plain = compiled("coded_digits", *words, f"--against={CONFIGS}/resnext_digits.py:smoke")
    assert coded["config"].endswith("coded_digits.py:smoke") and "against" not in plain
    for name, ratio in coded["against"].items():
        if name != "config":
            assert ratio == pytest.approx(coded[name] / plain[name])
    # Among them the scan over RandAugment's layers.
    assert coded["loops"] >= 1 and coded["unknown_loops"] == plain["unknown_loops"] == 0
    assert coded["total_flops"] > coded["flops"] and coded["total_bytes"] > coded["bytes_accessed"]


@pytest.mark.tpu_compile
def test_a_sweep_over_numbers_of_devices(capsys, monkeypatch):
    pytest.importorskip("libtpu")
    monkeypatch.setitem(topologies.SWEEPS, "v4", {8: "v4:2x2x2", 64: "v4:4x4x4"})
    config = f"--config={CONFIGS / 'resnext_digits.py'}:smoke"
    words = (*SMALL, "--config.data.fake_size=256")  # 64 devices with 2 examples each want 128
    assert compile_only.main([config, "--sweep=v4", "--per_device_batch=2", *words]) == 0
    text = capsys.readouterr().out
    assert text.count("  holds: ") == 5 and "v4:4x4x4" in text


@pytest.mark.tpu_compile
def test_the_compiler_has_every_slice_of_cloud_tpu():
    pytest.importorskip("libtpu")
    topologies.prepare_environment()
    for generation, meshes in accelerators.MESHES.items():
        for mesh in meshes:
            topologies.find(accelerators.type_of(generation, mesh))  # which counts its devices
    with pytest.raises(ConfigError, match=r"nearest.*: v2-32 \(v2:4x4\) and v2-128 \(v2:8x8\)"):
        topologies.find("v2:3x7")


@pytest.mark.tpu_compile
@pytest.mark.parametrize("name", ["v2:2x2", "v5e:1x1"])
def test_a_step_that_does_not_fit_tells_how_much_there_is(name):
    pytest.importorskip("libtpu")
    topologies.prepare_environment()
    topology = topologies.find(name)
    place = jax.sharding.SingleDeviceSharding(topology.devices[0])
    rows = int(1.25 * topology.hbm_bytes) // 4096
    numbers = jax.ShapeDtypeStruct((rows, 1024), "float32", sharding=place)
    step = Step(
        "train",
        lambda: jax.jit(lambda x: x.sum()).trace(numbers).lower(lowering_platforms=("tpu",)),
        *(8, 0.0, {"input": 4096 * rows}, 0, 0),
    )
    found = cost(step, topology)
    assert not found.fits and 0 <= found.needed_bytes - 4096 * rows < 0.1 * 2**30
    usable = topology.usable_bytes / 2**30
    assert found.reason.endswith(f"exceeds available HBM ({usable:.2f}G)")


@pytest.mark.tpu_compile
def test_the_largest_batch_that_fits_does_and_the_next_one_does_not():
    pytest.importorskip("libtpu")
    topologies.prepare_environment()
    config = configs.load(f"{CONFIGS / 'resnext_digits.py'}:smoke")
    config.data.fake_size, config.bn_group_size = 1 << 14, 1 << 11
    whole = topologies.find("v2:2x2")
    less = dataclasses.replace(whole.chip, usable_bytes=300_000_000)
    small = dataclasses.replace(whole, chip=less)

    def train(batch_size, **search):
        config.batch_size = batch_size
        (found,) = study.costs(config, small, only="train", **search)
        return found

    found = train(1 << 14)
    assert not found.fits and found.peak_bytes > 300_000_000
    assert found.smallest_batch == 1 << 11 <= found.largest_batch < 1 << 14
    for batch_size, fits in ((found.largest_batch, True), (found.largest_batch + 2048, False)):
        assert train(batch_size, search=False).fits is fits

"""What a run needs, told before it is taken, and refused where it cannot fit."""

import dataclasses
import types
from pathlib import Path

import jax
import numpy as np
import pytest

from branchnets import data, main
from branchnets import memory as memories
from branchnets.engine import budget
from branchnets.engine import config as configs
from branchnets.engine import train as training
from branchnets.engine.budget import Budget, Item
from branchnets.engine.setup import prepare
from branchnets.errors import ConfigError, UserError
from branchnets.memory import Memory

ONE = jax.devices()[:1]


def accelerator(device, host=10**12, devices=1):
    return Memory(device, host, devices, shared=False)


def test_what_fits_is_not_refused_and_what_does_not_names_the_largest_part():
    items = (Item("data set", 30, "lower A"), Item("activations", 50, "lower B"))
    Budget(accelerator(80), items).check()
    Budget(accelerator(None), items).check()  # nothing is known
    with pytest.raises(ConfigError, match=r"80 B on each device, and 79 B are free") as error:
        Budget(accelerator(79), items).check()
    assert str(error.value).endswith("lower B.")
    assert "activations 50 B, data set 30 B" in str(error.value)


def test_devices_that_share_the_memory_of_the_host_need_it_several_times():
    items, host = (Item("data set", 30, "lower A"),), (Item("workers", 10, "lower W"),)
    shared = Memory(None, 250, devices=8, shared=True)
    Budget(shared, items, host).check()
    assert Budget(shared, items, host).room == 0
    with pytest.raises(ConfigError, match="250 B of host memory, and 249 B are free"):
        Budget(dataclasses.replace(shared, host=249), items, host).check()


def test_workers_are_refused_by_the_host_alone():
    needs = Budget(accelerator(100, host=50), (Item("x", 90, "A"),), (Item("w", 60, "B"),))
    with pytest.raises(ConfigError, match="of host memory.*: B"):
        needs.check()
    assert "of 100 B free" in needs.table() and "on the host: w" in needs.table()


@pytest.fixture
def config(tiny):
    return tiny()


def test_the_data_set_is_counted_before_it_is_on_the_devices(config):
    dataset = data.load(config.data)
    (item,) = budget.data(dataset, accelerator(None)).device
    assert item.bytes == 64 * 8 * 8 + 64 * 4 and "data.stream=True" in item.change


def test_the_state_is_counted_leaf_by_leaf(config):
    setup = prepare(config, ONE)
    state = setup.init_state()
    device, host = budget.of_state(setup.abstract_state(), config, setup.inputs)
    assert [item.name for item in device] == ["parameters and statistics", "optimiser state"]
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert sum(item.bytes for item in device) == whole - state.step.nbytes
    (saved,) = host
    assert saved.bytes == whole
    inputs = types.SimpleNamespace(host_bytes=77)
    (_, workers) = budget.of_state(setup.abstract_state(), config, inputs)[1]
    assert workers.bytes == 77 and "data.workers" in workers.change
    averaged = dataclasses.replace(state, ema=state.params)
    names = [item.name for item in budget.of_state(averaged, config, None)[0]]
    assert "running averages" in names


def test_images_that_do_not_fit_between_processes_are_refused(config):
    inputs = types.SimpleNamespace(shared_bytes=100)
    for free in (100, None):
        budget.check_shared(inputs, config, free)
    budget.check_shared(types.SimpleNamespace(), config, 0)
    with pytest.raises(ConfigError, match=r"of shared memory.*data\.workers .*shm-size"):
        budget.check_shared(inputs, config, 99)
    assert memories.shared_free(Path("/nowhere")) is None


def test_advice_on_a_step_fits_the_batch(config):
    config.batch_size, config.bn_group_size = 48, 4
    # Parts of 48 / n examples that are whole groups: n of 2, 3, 4, 6, 12.
    assert "accumulate_steps=4 (now 1)" in budget.smaller_step(config, 1, 3.5)
    assert "accumulate_steps=6 (now 1)" in budget.smaller_step(config, 8, 4.1)
    assert "lower batch_size (48)" in budget.smaller_step(config, 1, 3.5)
    assert "accumulate_steps" not in budget.smaller_step(config, 1, 13)
    config.optimizer.accumulate_steps = 3
    assert "accumulate_steps=6 (now 3)" in budget.smaller_step(config, 8)
    config.optimizer.accumulate_steps = 6
    configs.validate(config, 8)


def test_only_memory_that_ran_out_is_explained(config):
    with pytest.raises(ConfigError, match="memory ran out.*batch_size"):
        with budget.explained(config, 1):
            np.empty(2**62, np.uint8)
    with pytest.raises(ConfigError, match="RESOURCE_EXHAUSTED: 7 GB.*eval.batch_size"):
        with budget.explained(config, 1):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 7 GB\nmore")
    with pytest.raises(jax.errors.JaxRuntimeError):
        with budget.explained(config, 1):
            raise jax.errors.JaxRuntimeError("INTERNAL: no")


@pytest.fixture
def free(monkeypatch):
    """Says how much memory is free on the host, which the devices share."""
    return lambda size: monkeypatch.setattr(memories, "host_free", lambda: size)


def test_a_run_that_cannot_fit_leaves_the_directory_to_another_config(tiny, tmp_path, free):
    config = tiny()
    setup = prepare(config, ONE)
    state = budget.of_state(setup.abstract_state(), config, setup.inputs)
    rest = sum(item.bytes for items in state for item in items) + 64 * 8 * 8 + 64 * 4
    free(rest + 1000)
    with pytest.raises(ConfigError, match="activations and workspace.*lower batch_size"):
        training.train(config, str(tmp_path), ONE)
    assert not [p for p in tmp_path.iterdir() if p.name != ".lock"]
    free(rest - 1000)  # not even the state: nothing is compiled
    with pytest.raises(ConfigError, match="a smaller network"):
        training.train(config, str(tmp_path), ONE)
    free(5000)  # not even the data set
    with pytest.raises(UserError, match="MB of memory are free.*data.stream=True"):
        training.train(config, str(tmp_path), ONE)


def test_the_command_line_refuses_with_one_line(tiny, tmp_path, free, capsys, monkeypatch):
    free(1000)
    monkeypatch.chdir(training.__file__.partition("branchnets/engine")[0])
    command = ["main", "--config=configs/coded_digits.py:smoke", f"--workdir={tmp_path / 'x'}"]
    assert main.main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "are free" in error and "Traceback" not in error
    assert not (tmp_path / "x").exists()

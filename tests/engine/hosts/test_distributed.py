"""Real processes that start, agree, or end because one of them cannot go on."""

from __future__ import annotations

import pairs
import pytest
from PIL import Image

from branchnets.engine import budget
from branchnets.engine.hosts import alike, distributed
from branchnets.errors import ConfigError, PeerLost
from branchnets.memory import Memory

CONFIG = "--config=configs/coded_digits.py:smoke"

AGREE = """
import pathlib, sys
process, port, folder = int(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
import numpy as np
import branchnets
from branchnets.data import Split
from branchnets.engine.hosts import alike, distributed
from branchnets.engine import budget
from branchnets.engine.hosts.store import JaxStore
from branchnets.engine.records import environment
from branchnets.engine import config as configs
from branchnets.engine.evaluate import Evaluator
from branchnets.engine.records.rundir import RunDir
from branchnets.errors import CheckpointError, ConfigError, PeerFailed, RunDirError, UserError
from branchnets.memory import Memory

distributed.initialize(f"127.0.0.1:{port}", 2, process, timeout=60)
assert (distributed.several(), distributed.process()) == (True, process)
assert distributed.gathered({"p": (process,)}) == [{"p": [0]}, {"p": [1]}]
assert distributed.smallest(5 - process) == 4
assert distributed.smallest(None if process else 7) == 7
assert distributed.total(process + 1) == 3
# What was agreed on before is deleted; the other process may have begun the next one.
assert len({key.split("/")[0] for key in JaxStore().all("agreed")}) <= 2
assert distributed.on_first_process(lambda: [process, None]) == [0, None]
# Both are on one host, and share its memory.
assert budget.agreed(Memory(10 - process, 1000, 1, False)) == Memory(9, 500, 1, False)

class Batches(list):
    unreadable = process + 1  # those of this process

class Family:
    eval_modes = staticmethod(dict)

assert Evaluator(Family, 0)({}, {}, Batches()) == {"unreadable": 3.0}
assert environment.describe()["devices"]["processes"] == 2
assert len(environment.describe()["hosts"]) == 2

def refused(kind, function, *arguments):
    try:
        function(*arguments)
    except kind as error:
        return str(error)
    raise AssertionError("it passed")

def fails():
    assert process == 0
    raise CheckpointError("the disk is full.")

told = refused(CheckpointError, distributed.on_first_process, fails)
assert told == "process 0: " * process + "the disk is full."

config = configs.base("coded")
alike.check(config, folder)
assert "Give all of them" in refused(ConfigError, alike.check, config, folder / str(process))
config.seed = process
told = refused(ConfigError, alike.check, config, folder)
both = "the config of process 0 and that of process 1 differ:"
assert told.startswith(f"{both}\\n  seed: 0 and 1\\nStart"), told
data = {"class_names": ["a"], "mean": 0.0, "std": [1.0], "train": {"examples": 5 + process}}
told = refused(ConfigError, alike.check_data, {"data": data, "steps_per_epoch": 1}, {})
assert told.startswith(
    "the data of process 0 and that of process 1 differ:\\n  train.examples: 5 and 6\\nGive"
), told
splits = {
    "train": Split(np.zeros((3, 2, 2, 1), np.uint8), np.arange(3)),
    "test": Split(np.full((3, 2, 2, 1), process, np.uint8), np.arange(3)),  # other pixels alone
}
data["train"] = {}
told = refused(ConfigError, alike.check_data, {"data": data, "steps_per_epoch": 1}, splits)
assert told.count("\\n") == 2 and "\\n  test.pixels: '" in told, told
config.seed = 0
distributed.global_state.num_processes += process
told = refused(ConfigError, alike.check, config, folder)
assert told.startswith("--num_processes of process 0 is 2, and that of process 1 is 3."), told
distributed.global_state.num_processes = 2
devices, alike.jax.local_devices = alike.jax.local_devices, lambda: [None] * (4 - process)
told = refused(ConfigError, alike.check, config, folder)
assert "number of devices of process 0 is 4, and that of process 1 is 3" in told, told
alike.jax.local_devices = devices
branchnets.__version__ += "+" * process
assert "the same on every host" in refused(ConfigError, alike.check, configs.base("coded"), folder)

alike._VISIBLE = 0.2
run_dir = RunDir(folder / str(process), write=process == 0)
distributed.on_first_process(lambda: run_dir.start(config, {}))
assert "process 1 does not see" in refused(RunDirError, alike.check_shared, run_dir)

if process == 1:
    distributed.tell_failed(UserError("no data here."))
else:
    told = refused(PeerFailed, distributed.gathered, 0)
    assert told == "process 1 failed: no data here."
"""


@pytest.mark.multiprocess
def test_two_processes_agree_and_refuse_what_differs(tmp_path, two_processes):
    (_, first), (_, second) = two_processes(AGREE, tmp_path)
    assert "process 0 of 2 (" in first and "waiting for the other 1 at 127.0.0.1:" in first
    assert "all 2 processes are there" in first
    assert "process 1 of 2 (" in second and "waiting for process 0 at 127.0.0.1:" in second


@pytest.mark.multiprocess
def test_processes_that_wait_in_vain_end_with_a_message(tmp_path):
    command = [pairs.sys.executable, "-m", "branchnets.main", CONFIG, f"--workdir={tmp_path}/run"]
    command += [f"--coordinator_address=127.0.0.1:{pairs.free_port()}"]
    command += ["--initialization_timeout=15"]
    # The last one was given another number of processes, and with it a number that is none.
    places = [(3, 0), (3, 1), (4, 3)]
    commands = [[*command, f"--num_processes={n}", f"--process_id={i}"] for n, i in places]
    first, second, third = pairs.end(commands, folders=[pairs.ROOT] * 3)
    assert (first.status, second.status, third.status) == (76, 76, 2)
    assert "waiting for the other 2 at 127.0.0.1:" in first.err and "Ctrl-C ends it" in first.err
    (error,) = [line for line in first.err.splitlines() if line.startswith("error: ")]
    assert "not all of 3 processes came to 127.0.0.1:" in error
    # Whichever of the two gives up first.
    assert "process is connected." in error or "among them: 127.0.0.1, 127.0.0.1." in error
    assert "error: process 1 of 3 found no process 0, or not all others" in second.err
    (error,) = [line for line in third.err.splitlines() if line.startswith("error: ")]
    assert error.startswith("error: process 3 of 4 (") and ") was refused at 127.0.0.1:" in error
    assert "the same --num_processes" in error and "Unexpected task" in third.err
    assert not (tmp_path / "run").exists()


@pytest.mark.multiprocess
def test_what_is_missing_on_one_host_ends_both(tmp_path):
    """Each has a folder of its own, as hosts have disks of their own."""
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    for number in range(20):
        place = folders[0] / "data" / ("train", "test")[number % 2] / f"class{number // 2}"
        place.mkdir(parents=True)
        Image.new("L", (8, 8)).save(place / "0.png")
    first, second = pairs.train(
        f"--config={pairs.ROOT}/configs/coded_digits.py", f"--workdir={tmp_path}/run",
        "--config.data.name=folder", "--config.data.data_dir=data", "--config.batch_size=2",
        "--config.bn_group_size=1", "--config.data.image_size=8", folders=folders,
    )  # fmt: skip
    assert (first.status, second.status) == (2, 2), (first.err, second.err)
    for process, ended in enumerate((first, second)):
        (line,) = [line for line in ended.err.splitlines() if line.startswith("error: ")]
        assert line.startswith(f"error: process {process}: ")
    assert "error: process 0: process 1 failed: " in first.err and "data" in first.err
    assert not (tmp_path / "run").exists()


def test_alone_there_is_nobody_to_agree_with():
    assert distributed.gathered((1, 2)) == [[1, 2]]
    assert distributed.on_first_process(lambda: 3) == distributed.smallest(3) == 3
    assert distributed.total(2) == 2
    alike.check_equal("anything", 1, "")
    distributed.tell_failed(ConfigError("nobody hears it"))
    assert not distributed.several() and distributed.is_first()
    assert budget.agreed(Memory(None, 100, 8, True)) == Memory(None, 100, 8, True)


def test_what_all_agreed_on_stands_though_it_cannot_be_tidied_up(monkeypatch):
    class Store:
        def all(self, folder):
            return {"1": "3"} if folder == "agreed/1/of" else {}

        def set(self, key, value):
            pass

        def delete(self, folder):
            raise PeerLost("out of reach.")

    for name, value in (("process", 0), ("count", 2), ("several", True)):
        monkeypatch.setattr(distributed, name, lambda value=value: value)
    monkeypatch.setattr(distributed, "JaxStore", Store)
    monkeypatch.setattr(distributed, "_turns", iter([1]))
    assert distributed.gathered(2) == [2, 3]

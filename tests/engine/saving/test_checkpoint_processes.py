"""Checkpoints of several processes that share a file system."""

from __future__ import annotations

import pytest

WORKER = """
import sys
import jax
from branchnets.storage import as_path
process, port, directory = int(sys.argv[1]), sys.argv[2], as_path(sys.argv[3])
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=process)
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from branchnets.engine.saving.checkpoint import Checkpoints
from branchnets.errors import CheckpointError

mesh = Mesh(np.array(jax.devices()), ("data",))

def state(value):
    def make(spec):
        return jax.make_array_from_callback(
            (4, 3), NamedSharding(mesh, spec), lambda i: np.full((4, 3), value, np.float32)[i])
    return {"split": make(PartitionSpec("data")), "copied": make(PartitionSpec())}

def damage(step):
    multihost_utils.sync_global_devices(f"before {step}")
    if process == 0:
        (directory / str(step) / "default" / "_METADATA").write_text("{")
    multihost_utils.sync_global_devices(f"after {step}")

with Checkpoints(directory, best_metric="accuracy") as c:
    assert c.restore(state(0)) is None
    assert c.save(1, state(1), {"accuracy": 0.9})
    assert c.save(2, state(2), {"accuracy": 0.1})
    assert not c.save(2, state(3))
    assert (c.latest_step(), c.best_step()) == (2, 1)
damage(2)
with Checkpoints(directory, best_metric="accuracy") as c:
    restored, step = c.restore(state(0))
    assert step == 1
    for x in jax.tree.leaves(restored):
        assert all(np.all(np.asarray(s.data) == 1) for s in x.addressable_shards)
    assert restored["split"].sharding.spec == PartitionSpec("data")
    assert c.save(2, state(2))
damage(1)
damage(2)
try:
    Checkpoints(directory).restore(state(0))
except CheckpointError as error:
    print(error)
else:
    raise AssertionError("nothing was whole")
"""


@pytest.mark.multiprocess
def test_two_processes_save_agree_on_damage_and_restore(tmp_path, two_processes):
    outputs = two_processes(WORKER, f"{tmp_path}/checkpoints")
    assert "damaged-1, damaged-2, damaged-2-2" in outputs[0][0]
    assert "process 0: no checkpoint" in outputs[1][0]


@pytest.mark.multiprocess
def test_two_processes_share_a_bucket(gcs, two_processes):
    test_two_processes_save_agree_on_damage_and_restore("gs://bucket/shared", two_processes)

"""Where a process stands among several: flags, SLURM and TPU pods, the last two as stand-ins."""

from __future__ import annotations

import pytest

from branchnets.engine.hosts import cluster
from branchnets.engine.hosts.cluster import Place
from branchnets.errors import ConfigError, UserError

SLURM = {
    "SLURM_JOB_ID": "1234",
    "SLURM_STEP_NODELIST": "gpu[007-008]",
    "SLURM_NTASKS": "4",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "CUDA_VISIBLE_DEVICES": "0,1,2,3",
}


@pytest.fixture
def nowhere(monkeypatch):
    """Neither under SLURM nor on a TPU VM, wherever the tests run."""
    for name in SLURM:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("jax._src.clusters.cloud_tpu_cluster.running_in_cloud_tpu_vm", False)
    return monkeypatch


def test_one_process_starts_nothing(nowhere):
    assert cluster.place(None, None, None, 300) is None


def test_flags_say_the_place():
    assert cluster.place("10.0.0.1:1234", 4, 2, 300) == Place("10.0.0.1:1234", 4, 2)


@pytest.mark.parametrize(
    "given, message",
    [
        (("10.0.0.1:1234", None, None), "need all of"),
        ((None, 2, 1), "need all of"),
        (("10.0.0.1", 2, 1), "must be HOST:PORT"),
        (("10.0.0.1:1234", 0, 0), "--num_processes=0 must be at least 1"),
        (("10.0.0.1:1234", 2, 2), "0 to --num_processes - 1 = 1"),
        (("10.0.0.1:1234", 2, -1), "0 to --num_processes - 1 = 1"),
    ],
)
def test_flags_that_say_no_place_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        cluster.place(*given, 300)


def test_a_task_of_slurm_is_a_process(nowhere):
    for name, value in SLURM.items():
        nowhere.setenv(name, value)
    # Two tasks share the four GPUs of a node; the port is of JAX's own rule.
    assert cluster.detect(300) == Place(f"gpu007:{65535 - 4095 + 1234}", 4, 3, [2, 3])
    nowhere.setenv("SLURM_NTASKS", "1")
    assert cluster.detect(300) is None


@pytest.mark.parametrize(
    "changes, devices",
    [
        ({"SLURM_NTASKS": "2"}, None),  # alone on its node: all
        ({"CUDA_VISIBLE_DEVICES": "0"}, None),  # sees its own alone
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, [1]),
        ({"CUDA_VISIBLE_DEVICES": ""}, [1]),
        ({"SLURM_NTASKS": "8", "SLURM_LOCALID": "3"}, [3]),
        # Three tasks, of which two are on this node.
        (
            {"SLURM_NTASKS": "3", "SLURM_STEP_TASKS_PER_NODE": "2,1", "SLURM_NODEID": "0"},
            [2, 3],
        ),
        ({"SLURM_NTASKS": "5", "SLURM_TASKS_PER_NODE": "1(x2),3", "SLURM_NODEID": "2"}, [1]),
    ],
)
def test_tasks_of_a_node_share_its_gpus(changes, devices):
    assert cluster.slurm_devices({**SLURM, **changes}) == devices


def test_a_worker_of_a_tpu_pod_is_a_process(nowhere):
    metadata = {
        "agent-worker-number": "1",
        "worker-network-endpoints": "a:0:10.0.0.5,b:1:10.0.0.6",
        "tpu-env": "ACCELERATOR_TYPE: 'v3-16'",
    }
    module = "jax._src.clusters.cloud_tpu_cluster"
    for name in ("TPU_SKIP_MDS_QUERY", "MEGASCALE_NUM_SLICES", "MEGASCALE_COORDINATOR_ADDRESS"):
        nowhere.delenv(name, raising=False)
    nowhere.setattr(f"{module}.running_in_cloud_tpu_vm", True)
    nowhere.setattr(f"{module}.get_metadata", lambda key: (metadata[key], 200))
    nowhere.setattr(f"{module}.GkeTpuCluster.is_env_present", lambda: False)
    found = cluster.detect(300)
    assert found == Place(found.address, 2, 1) and found.address.startswith("10.0.0.5:")
    metadata["worker-network-endpoints"] = "a:0:10.0.0.5"  # a single host
    metadata["agent-worker-number"] = "0"
    assert cluster.detect(300) is None
    metadata["worker-network-endpoints"] = "a:b"
    with pytest.raises(UserError, match="unsupported .* Give it: --coordinator_address"):
        cluster.place(None, None, None, 300)

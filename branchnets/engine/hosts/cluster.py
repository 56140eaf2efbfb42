"""Where a process stands among several: as its flags say, or a TPU pod, or SLURM."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections.abc import Mapping

from branchnets.engine.hosts import address
from branchnets.errors import ConfigError, UserError


@dataclasses.dataclass(frozen=True)
class Place:
    """Of one process among several.

    Attributes:
      address: HOST:PORT of process 0.
      count: how many there are.
      process: which this one is.
      local_devices: the only devices of its host that it takes; None: all that it sees.
    """

    address: str
    count: int
    process: int
    local_devices: list[int] | None = None


def place(
    coordinator_address: str | None, num_processes: int | None, process_id: int | None, timeout: int
) -> Place | None:
    """The place that is given, or detected where nothing is; None: one process, on its own.

    Raises:
      ConfigError: given in part, or not possible.
      UserError: a TPU pod or SLURM says something that cannot be used.
    """
    given = (coordinator_address, num_processes, process_id)
    if all(part is None for part in given):
        try:
            return detect(timeout)
        except (RuntimeError, ValueError, LookupError, OSError, ImportError) as error:
            raise UserError(
                f"the place of this process among several cannot be found out: {error}. Give it: "
                "--coordinator_address=HOST:PORT --num_processes=N --process_id=I"
            ) from error
    if coordinator_address is None or num_processes is None or process_id is None:
        raise ConfigError(
            "several processes need all of --coordinator_address=HOST:PORT --num_processes=N "
            "--process_id=I (on a TPU pod and under SLURM none of them)."
        )
    if num_processes < 1:
        raise ConfigError(f"--num_processes={num_processes} must be at least 1.")
    if not 0 <= process_id < num_processes:
        raise ConfigError(
            f"--process_id={process_id} must be one of 0 to --num_processes - 1 = "
            f"{num_processes - 1}."
        )
    address.check(coordinator_address)
    return Place(coordinator_address, num_processes, process_id)


def detect(timeout: int) -> Place | None:
    """The place that a TPU pod or SLURM gives this process; None elsewhere.

    Args:
      timeout: seconds to wait for the name of process 0 to be known.
    """
    # Of JAX's own detection, whose parts have no public name, the kinds that are meant here: it
    # also takes every Kubernetes pod for part of a job.
    from jax._src.clusters import GceTpuCluster, GkeTpuCluster, SlurmCluster

    for kind in (SlurmCluster, GkeTpuCluster, GceTpuCluster):
        if kind.is_env_present():
            break
    else:
        return None
    count = kind.get_process_count()
    if count == 1:
        return None
    port = os.environ.get("JAX_COORDINATOR_PORT")
    found = kind.get_coordinator_address(timeout_secs=timeout, override_coordinator_port=port)
    devices = slurm_devices(os.environ) if kind is SlurmCluster else None
    return Place(found, count, kind.get_process_id(), devices)


def slurm_devices(environment: Mapping[str, str]) -> list[int] | None:
    """The GPUs that a task of a SLURM step takes, of those that it sees; None: all of them.

    Differs: JAX gives each task the one GPU of its local number, also where a task is alone on its
    node, or sees only its own. Here the tasks of a node share evenly the GPUs that they see.
    """
    on_node, local = _slurm_tasks(environment), int(environment["SLURM_LOCALID"])
    seen = environment.get("CUDA_VISIBLE_DEVICES")
    visible = len(seen.split(",")) if seen else on_node
    if on_node == 1 or visible == 1:
        return None
    each = max(visible // on_node, 1)
    if local == 0 and (unused := visible - each * on_node) > 0:
        print(f"{on_node} tasks share {visible} GPUs: {unused} stay unused.", file=sys.stderr)
    return list(range(local * each, (local + 1) * each))


def _slurm_tasks(environment: Mapping[str, str]) -> int:
    """How many tasks of a step are on this node."""
    # Of each node in turn: "2(x3),1" is 2, 2, 2, 1.
    told = environment.get("SLURM_STEP_TASKS_PER_NODE", environment.get("SLURM_TASKS_PER_NODE"))
    if told and "SLURM_NODEID" in environment:
        each: list[int] = []
        for tasks, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", told):
            each += [int(tasks)] * int(times or 1)
        return each[int(environment["SLURM_NODEID"])]
    nodes = int(environment.get("SLURM_STEP_NUM_NODES", environment.get("SLURM_NNODES", "1")))
    return max(int(environment["SLURM_NTASKS"]) // nodes, 1)

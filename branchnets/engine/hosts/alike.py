"""What must be the same on all processes of a run, refused on all of them where it is not."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

import branchnets
from branchnets import data
from branchnets.engine.config.loading import flatten
from branchnets.engine.config.resolve import plain
from branchnets.engine.hosts import distributed
from branchnets.engine.records.rundir import RunDir
from branchnets.errors import ConfigError, RunDirError

#: Seconds that a shared file system may take to show a file to other hosts.
_VISIBLE = 20.0


def check(config: ConfigDict, workdir: str) -> None:
    """Refuses programs, configs, run directories or devices that differ between processes.

    Args:
      config: overrides included.
      workdir: the run directory.

    Raises:
      ConfigError: names the processes and what differs.
    """
    if not distributed.several():
        return
    check_equal("--num_processes", distributed.count(), "Give all of them the same.")
    check_equal("the program", versions(), "Install the same on every host.")
    advice = "Start all of them with the same --config and overrides."
    check_equal("the config", plain(config), advice)
    check_equal("--workdir", str(workdir), "Give all of them the same.")
    devices = len(jax.local_devices())
    check_equal("the number of devices", devices, "All processes must have as many.")


def versions() -> dict[str, str]:
    """The versions that decide what is computed; of this package also a hash of its sources."""
    digest = hashlib.sha256()
    folder = Path(branchnets.__file__).parent
    for file in sorted(folder.rglob("*.py")):
        digest.update(file.read_bytes())
    found = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax")}
    return {"branchnets": f"{branchnets.__version__} ({digest.hexdigest()[:12]})", **found}


def check_data(derived: Mapping[str, Any], splits: Mapping[str, data.AnySplit]) -> None:
    """Refuses hosts whose data differ; pixels only of what is held in memory.

    Args:
      derived: what follows from the config and the data; see `Setup.derived`.
      splits: of the data set.

    Raises:
      ConfigError: names the processes and what differs.
    """
    if not distributed.several():
        return
    found = dict(derived["data"])
    rest = json.dumps([found.pop("class_names"), found.pop("mean"), found.pop("std")], default=list)
    # The mean may be an image: of these only whether they are the same.
    found["classes, mean and std"] = hashlib.sha256(rest.encode()).hexdigest()[:12]
    found["steps_per_epoch"] = derived["steps_per_epoch"]
    for name, split in splits.items():
        found[name] = dict(found.get(name) or data.identity(split))
        if isinstance(split, data.Split):
            found[name]["pixels"] = data.pixels(split)
    check_equal("the data", found, "Give all hosts the same (data.data_dir).")


def check_equal(name: str, value: Any, advice: str) -> None:
    """Refuses, on every process, that one has something else than the first.

    Args:
      name: of what must be the same.
      value: fit for JSON; of a mapping only what differs is told.
      advice: what to do.

    Raises:
      ConfigError: names the processes and what they have.
    """
    digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
    digests = distributed.gathered(digest)
    other = [number for number, found in enumerate(digests) if found != digests[0]]
    if not other:
        return
    # Only now, and only of two of them: there may be hundreds of processes.
    shown = distributed.gathered(value if distributed.process() in (0, other[0]) else None)
    more = f" (also those of {other[1:]})" if other[1:] else ""
    told = _differing(name, shown[0], shown[other[0]], f"process {other[0]}{more}")
    raise ConfigError(f"{told}{advice}")


def _differing(name: str, first: Any, second: Any, whose: str) -> str:
    if not isinstance(first, Mapping):
        return f"{name} of process 0 is {first}, and that of {whose} is {second}. "
    one, two = flatten(first), flatten(second)
    lines = [
        f"  {field}: {one.get(field)!r} and {two.get(field)!r}\n"
        for field in sorted({*one, *two})
        if one.get(field) != two.get(field)
    ]
    return f"{name} of process 0 and that of {whose} differ:\n{''.join(lines)}"


def check_shared(run_dir: RunDir) -> None:
    """Refuses a run directory that only some processes see; to be called once it was begun.

    Raises:
      RunDirError: on all processes.
    """
    deadline = time.monotonic() + _VISIBLE
    while not (seen := run_dir.exists) and time.monotonic() < deadline:
        time.sleep(0.1)
    blind = [number for number, sees in enumerate(distributed.gathered(seen)) if not sees]
    if blind:
        raise RunDirError(
            f"process {blind[0]} does not see the run directory {run_dir.path} that process 0 has "
            "written. It must be on a file system that all hosts share, or a bucket: "
            "--workdir=gs://BUCKET/RUN."
        )

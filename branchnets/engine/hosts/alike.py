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
from branchnets.engine.config.loading import flatten
from branchnets.engine.config.resolve import from_plain, plain
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
    distributed.check_equal("the program", versions(), "Install the same on every host.")
    _check_config(config)
    distributed.check_equal("--workdir", str(workdir), "Give all of them the same.")
    distributed.check_equal(
        "the number of devices", len(jax.local_devices()), "All processes must have as many."
    )


def versions() -> dict[str, str]:
    """The versions that decide what is computed; of this package also a hash of its sources."""
    digest = hashlib.sha256()
    folder = Path(branchnets.__file__).parent
    for file in sorted(folder.rglob("*.py")):
        digest.update(file.read_bytes())
    found = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax")}
    return {"branchnets": f"{branchnets.__version__} ({digest.hexdigest()[:12]})", **found}


def _check_config(config: ConfigDict) -> None:
    own = plain(config)
    digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()
    digests = distributed.gathered(digest)
    other = [number for number, found in enumerate(digests) if found != digests[0]]
    if not other:
        return
    # Only now, and only two of them: there may be hundreds of processes.
    shown = distributed.gathered(own if distributed.process() in (0, other[0]) else None)
    first, second = (flatten(from_plain(shown[number])) for number in (0, other[0]))
    lines = [
        f"{name}: {first.get(name)!r} and {second.get(name)!r}"
        for name in sorted({*first, *second})
        if first.get(name) != second.get(name)
    ]
    raise ConfigError(
        f"process 0 and process {other[0]} have other configs:\n  "
        + "\n  ".join(lines)
        + "\nStart all of them with the same --config and overrides."
    )


def check_data(derived: Mapping[str, Any]) -> None:
    """Refuses hosts whose training data differ.

    Args:
      derived: what follows from the config and the data; see `Setup.derived`.

    Raises:
      ConfigError: names the processes.
    """
    if not distributed.several():
        return
    data = dict(derived["data"])
    rest = json.dumps([data.pop("class_names"), data.pop("mean"), data.pop("std")], default=list)
    # The mean may be an image: of these only whether they are the same.
    data["classes and mean"] = hashlib.sha256(rest.encode()).hexdigest()[:12]
    data["steps_per_epoch"] = derived["steps_per_epoch"]
    distributed.check_equal(
        "the training data", data, "Give all hosts the same data (data.data_dir)."
    )


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

"""What a run was made with: versions, machine, devices, commit."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import branchnets
from branchnets.engine.hosts import distributed

_PACKAGES = (
    "branchnets", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "ml-collections",
    "numpy", "clu", "tensorboardX", "array-record", "libtpu", "jax-cuda12-plugin",
    "jax-cuda13-plugin",
)  # fmt: skip


def describe(command: Sequence[str] | None = None) -> dict[str, Any]:
    """Return a description of this process's environment, fit for JSON; every process calls it.

    Args:
      command: The command line; `sys.argv` by default.
    """
    import jax

    devices = jax.devices()
    return {
        "command": _command() if command is None else list(command),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "versions": {name: v for name in _PACKAGES if (v := _version(name)) is not None},
        "devices": {
            "backend": jax.default_backend(),
            "kind": devices[0].device_kind,
            "count": len(devices),
            "processes": jax.process_count(),
        },
        **({"hosts": distributed.gathered(socket.gethostname())} if distributed.several() else {}),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "source": commit(Path(branchnets.__file__)),
    }  # fmt: skip


def _command() -> list[str]:
    """sys.argv, with a script that lies in the package named as a module."""
    script = Path(sys.argv[0])
    package = Path(branchnets.__file__).parent
    if script.is_absolute() and script.is_relative_to(package):
        module = script.relative_to(package.parent).with_suffix("")
        return ["python", "-m", ".".join(module.parts), *sys.argv[1:]]
    return list(sys.argv)


def commit(file: Path) -> dict[str, Any]:
    """Return the git commit that a source file is of, and whether its checkout was changed.

    Args:
      file: A file of the package.

    Returns:
      {"commit": str, "dirty": bool} in a checkout; {"commit": str} if the package was installed
      from a repository's URL; else {"commit": None}.
    """
    # A package inside an environment that happens to lie in some checkout is not of its commit.
    if _git(file.parent, "ls-files", "--error-unmatch", file.name) is not None:
        head = _git(file.parent, "rev-parse", "HEAD")
        status = _git(file.parent, "status", "--porcelain", "--untracked-files=no")
        if head:
            return {"commit": head, "dirty": bool(status)}
    try:
        text = importlib.metadata.distribution("branchnets").read_text("direct_url.json")
        return {"commit": json.loads(text or "{}").get("vcs_info", {}).get("commit_id")}
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return {"commit": None}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None

"""JAX as the tests want it, set before it starts: eight simulated devices, quick compilation."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pathlib

import pytest

_FLAGS = {
    "--xla_force_host_platform_device_count": "8",
    # The tests compile far longer than they run: skip LLVM's optimisations.
    "--xla_backend_optimization_level": "0",
}
# Another code generator for fusions, which compiles these networks in less than half the time. Only
# where jaxlib is known to have the choice: JAX does not start with a flag that it does not know,
# and neither does the compiler for TPUs, which knows none of the CPU's.
_CHOICE = importlib.metadata.version("jaxlib").startswith("0.10.")
if _CHOICE and importlib.util.find_spec("libtpu") is None:
    _FLAGS["--xla_cpu_use_fusion_emitters"] = "false"
for _flag, _value in _FLAGS.items():
    if _flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_flag}={_value}".strip()

# The same small networks are compiled again and again, in one test process and the next.
_CACHE = pathlib.Path(__file__).parents[1] / ".pytest_cache" / "xla"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")


@pytest.fixture(scope="session")
def gcs_process():
    """A stand-in for Google Cloud Storage that serves gs://bucket to this process and those begun.

    One for all tests: the clients keep the address of the first.
    """
    from gcs_server import Server

    with Server() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        pytest.importorskip("gcsfs")  # only now, for it reads the environment
        yield server


@pytest.fixture
def gcs(gcs_process):
    """The stand-in, as it serves without hindrance."""
    gcs_process.before = lambda method, name: None
    yield gcs_process
    gcs_process.before = lambda method, name: None


@pytest.fixture
def two_processes():
    """Runs a program as both processes of a JAX cluster; see `pairs.run`."""
    from pairs import run

    return run

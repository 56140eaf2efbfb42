"""Which errors are those of a connection to another process that broke."""

import jax
import pytest

from branchnets.engine.hosts import failure
from branchnets.errors import DataError

READ = "UNKNOWN: Gloo AllGather failed: [pair.cc:538] Read error [127.0.0.1]:1: Connection reset"


@pytest.mark.parametrize(
    "error,of_jax,broken",
    [
        (jax.errors.JaxRuntimeError(READ), True, True),
        (ValueError(READ), True, True),  # of a value whose operation failed
        (ValueError("INTERNAL: NCCL operation ncclAllReduce failed"), True, True),
        (jax.errors.JaxRuntimeError("UNAVAILABLE: Socket closed"), True, True),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: of Gloo's memory"), True, False),
        (jax.errors.JaxRuntimeError("INVALID_ARGUMENT: a shape"), True, False),
        # Of tensorstore, about a bucket.
        (ValueError("UNAVAILABLE: CURL error: Connection refused"), False, False),
        (ValueError("Gloo is not installed"), False, False),
        (DataError(READ), False, False),
    ],
)
def test_errors_of_connections_are_told_from_others(error, of_jax, broken):
    assert (failure.of_jax(error), failure.is_broken(error)) == (of_jax, broken)

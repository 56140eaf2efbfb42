"""Which compiler options the training step is given."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from branchnets.engine import compiler


class Elsewhere:
    platform = "tpu"


def test_cpu_alone_is_told_something():
    devices = np.array(jax.devices("cpu")[:1])
    assert compiler.options(Mesh(devices, ("data",))), "this jaxlib does not know the option"
    other = type("Fake", (), {"devices": np.array([Elsewhere()], dtype=object)})
    assert compiler.options(other) is None


@pytest.mark.parametrize(("value", "known"), [("LIBRARY_FUSION_TYPE_REDUCE", True), ("NO", False)])
def test_an_option_that_jaxlib_does_not_take_is_noticed(value, known):
    assert compiler.known({"xla_cpu_experimental_ynn_fusion_type": value}) is known
    assert not compiler.known({"xla_cpu_no_such_option": value})

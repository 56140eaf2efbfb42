"""Two processes draw the same connections, and learn what one process learns."""

from __future__ import annotations

import jax
import numpy as np
import pytest

TRAIN = """
import pathlib
import jax, numpy as np
from branchnets.engine import config as configs
from branchnets.engine import step as steps
from branchnets.engine.setup import prepare

def state_after(config_file, devices):
    setup = prepare(configs.load(f"{config_file}:smoke"), devices)
    phase = setup.family.phases(setup.resolved.total_steps)[0]
    step = steps.make_step(
        setup.family, setup.optimizers, setup.inputs.batch, phase, mesh=setup.mesh)
    step, state = jax.jit(step), setup.init_state()
    for number in range(3):
        state, _ = step(state, setup.inputs.arrays(number))
    return state.params
"""
WORKER = f"""{TRAIN}
import sys
process, port, config_file, out = int(sys.argv[1]), *sys.argv[2:]
jax.distributed.initialize(f"127.0.0.1:{{port}}", num_processes=2, process_id=process)
leaves = jax.tree.leaves(state_after(config_file, jax.devices()))
np.savez(f"{{out}}/{{process}}", *[leaf.addressable_shards[0].data for leaf in leaves])
"""


@pytest.mark.multiprocess
def test_two_processes_draw_and_learn_what_one_does(tmp_path, two_processes, request):
    config_file = request.config.rootpath / "configs/maskconnect_digits.py"
    two_processes(WORKER, config_file, tmp_path)
    first, second = (np.load(tmp_path / f"{process}.npz") for process in range(2))
    scope: dict = {}
    exec(TRAIN, scope)
    params = scope["state_after"](config_file, jax.devices()[:2])
    masks = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(params["masks"])]
    assert masks
    for i, leaf in enumerate(jax.tree.leaves(params)):
        one, two = first[f"arr_{i}"], second[f"arr_{i}"]
        np.testing.assert_array_equal(one, two)
        np.testing.assert_allclose(one, leaf, rtol=1e-4, atol=1e-5)

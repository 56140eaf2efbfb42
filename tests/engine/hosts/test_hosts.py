"""Two processes train what one process with all their devices does, and go on for each other."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from run_states import final_state

from branchnets.engine import config as configs
from branchnets.engine import train as training
from branchnets.engine.loop import Loop
from branchnets.engine.records.logging import read_metrics
from branchnets.engine.setup import prepare
from branchnets.engine.stopping import PREEMPTED

STEPS = '''
import jax, numpy as np
from branchnets.engine import config as configs
from branchnets.engine import step as steps
from branchnets.engine.setup import prepare

def states_after(config_file, *counts):
    """Parameters after so many steps each, in one run."""
    config = configs.load(str(config_file))
    config.optimizer.learning_rate = 1e-3
    setup = prepare(config)
    phase = setup.family.phases(setup.resolved.total_steps)[0]
    make = steps.make_step(
        setup.family, setup.optimizers, setup.inputs.batch, phase, mesh=setup.mesh)
    step, state = jax.jit(make), setup.init_state()
    found = {0: state.params}
    for number in range(max(counts)):
        state, _ = step(state, setup.inputs.arrays(number))
        found[number + 1] = state.params
    return [found[count] for count in counts]
'''
STEPS_WORKER = f"""{STEPS}
import sys
from branchnets.engine.hosts import distributed
process, port, config_file, out = int(sys.argv[1]), *sys.argv[2:]
distributed.initialize(f"127.0.0.1:{{port}}", 2, process)
assert (jax.local_device_count(), jax.device_count()) == (4, 8)
leaves = jax.tree.leaves(states_after(config_file, 1, 20))
np.savez(f"{{out}}/{{process}}", *[leaf.addressable_shards[0].data for leaf in leaves])
"""


@pytest.mark.multiprocess
def test_twenty_steps_of_the_digits_config_end_where_those_of_one_process_do(
    tmp_path, two_processes, request
):
    config_file = request.config.rootpath / "configs/coded_digits.py"
    two_processes(STEPS_WORKER, config_file, tmp_path, devices=4)
    first, second = (np.load(tmp_path / f"{process}.npz") for process in range(2))
    scope: dict = {}
    exec(STEPS, scope)
    assert jax.device_count() == 8
    begun, *whole = scope["states_after"](config_file, 0, 1, 20)
    leaves, tree = jax.tree.flatten(whole)
    assert all(leaf.dtype == np.float32 for leaf in leaves)
    one, two = ([found[f"arr_{i}"] for i in range(len(leaves))] for found in (first, second))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)
    # Beside how far the steps go. One device instead of eight leads as far away. Rounding grows
    # with every step, so that the first one tells the most. See results/hosts.md.
    for pair, most in zip(zip(tree.unflatten(one), whole, strict=True), (0.002, 0.05), strict=True):
        assert distance(*pair) < most * distance(pair[1], begun)


def distance(one, other):
    """Euclidean, over all leaves of two trees."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return float(np.sqrt(sum(np.sum(np.square(np.float64(a) - np.float64(b))) for a, b in pairs)))


#: Trains; from a step on its second process is asked to stop, and steps take their time.
RUN = """
import json, os, pathlib, signal, sys, time
from branchnets import main
from branchnets.engine import config as configs
from branchnets.engine.hosts import distributed
from branchnets.engine import loop, train

process, port, config_file, workdir, last = int(sys.argv[1]), *sys.argv[2:]
distributed.initialize(f"127.0.0.1:{port}", 2, process)
after_step = loop.Loop._after_step

def after(self):
    after_step(self)
    if self.done == int(last) and process == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    if self.done >= int(last):
        time.sleep(0.5)

loop.Loop._after_step = after
config = configs.from_plain(json.loads(pathlib.Path(config_file).read_text()))
status = train.train(config, workdir)
if status == 0:
    status = main.main(["main", "--mode=eval", f"--workdir={workdir}"])
sys.exit(status)
"""
STOP, NEVER = 3, 1000


@pytest.mark.multiprocess
def test_a_run_changes_between_one_process_and_two(tiny, tmp_path, two_processes, monkeypatch):
    # At a rate of 0.1 the first steps make differences of rounding a thousand times larger.
    config = tiny(**{"epochs": 3, "ema.decay": 0.5, "optimizer.learning_rate": 1e-3})
    assert config.dtype == "float32"
    four = jax.devices()[:4]
    given = tmp_path / "config.json"
    given.write_text(json.dumps(configs.plain(config)))
    whole, begun, goes_on = (tmp_path / name for name in ("whole", "two_then_one", "one_then_two"))
    assert training.train(config, str(whole), four) == 0

    (_, first), _ = two_processes(
        RUN, given, begun, STOP, devices=2, statuses=(PREEMPTED, PREEMPTED)
    )
    stopped = max(line["step"] for line in read_metrics(begun / "metrics.jsonl"))
    assert f"Stopped at step {stopped} of 12, as process 1 was asked to; " in first
    assert STOP <= stopped < 12
    assert training.train(config, str(begun), four) == 0

    with monkeypatch.context() as patch:
        after_step = Loop._after_step

        def after(loop):
            after_step(loop)
            if loop.done == STOP:
                loop.peers.stop.status = PREEMPTED

        patch.setattr(Loop, "_after_step", after)
        assert training.train(config, str(goes_on), four) == PREEMPTED
    (out, first), (nothing, second) = two_processes(RUN, given, goes_on, NEVER, devices=2)
    assert f"at step {STOP}." in first
    # Beside Gloo's own lines, torn by its threads, the second process says which coordinator it
    # tries, and nothing more.
    said = [line for line in f"{second}{nothing}".splitlines() if line and "peer ranks" not in line]
    assert len(said) == 1, said

    wanted = final_state(whole).params
    moved = distance(wanted, jax.device_get(prepare(config, four).init_state().params))
    assert moved > 0.01
    for run in (begun, goes_on):
        assert distance(final_state(run).params, wanted) < 0.05 * moved
    assert json.loads((goes_on / "environment-2.json").read_text())["devices"]["processes"] == 2
    assert not (goes_on / "environment-3.json").exists()
    summary = json.loads((goes_on / "summary.json").read_text())
    # --mode=eval, of both.
    (line,) = [line for line in out.splitlines() if line.startswith("accuracy ")]
    assert float(line.split()[1]) == pytest.approx(summary["test_accuracy"], abs=1e-3)

"""A run of training: what it starts from, what is told and refused first, and how it ends."""

from __future__ import annotations

import contextlib
import sys

import jax
from clu import parameter_overview
from ml_collections import ConfigDict

from branchnets.engine import budget, transfer
from branchnets.engine import config as configs
from branchnets.engine.executable import Executables
from branchnets.engine.hosts import alike, distributed, peers
from branchnets.engine.loop import Loop
from branchnets.engine.records import environment
from branchnets.engine.records.rundir import RunDir
from branchnets.engine.records.summary import summarise
from branchnets.engine.saving.checkpoint import Checkpoints
from branchnets.engine.setup import Setup, prepare
from branchnets.engine.state import TrainState
from branchnets.engine.stopping import StopRequest
from branchnets.errors import RunDirError, UserError


def train(config: ConfigDict, workdir: str, devices: list[jax.Device] | None = None) -> int:
    """Trains a config in a run directory, or goes on from its newest checkpoint.

    Args:
      config: overrides included.
      workdir: the run directory.
      devices: to train on; all by default.

    Returns:
      0 when the run is finished, else the exit status of
      :mod:`branchnets.engine.stopping`: the state is saved and the run can be resumed.

    Raises:
      UserError, ValueError: something the user can put right.
    """
    stop, alone = StopRequest(), not distributed.several()
    # Several processes stop together, or the others would wait for the one that is no more.
    with contextlib.nullcontext() if alone else stop, peers.joined(stop) as others:
        return _train(config, workdir, devices, stop, others)


def _train(
    config: ConfigDict,
    workdir: str,
    devices: list[jax.Device] | None,
    stop: StopRequest,
    others: peers.Peers | peers.Alone,
) -> int:
    first = distributed.is_first()
    alike.check(config, workdir)
    run_dir = RunDir(workdir, write=first)
    exists = distributed.on_first_process(lambda: run_dir.exists)
    if exists:  # what the others read as well must not depend on how soon they see it
        alike.check_shared(run_dir)
    run_dir.check(config)  # before any data is read
    own = run_dir.derived().get("data") if exists else None
    setup = prepare(config, devices, own)
    with run_dir, contextlib.closing(setup.inputs):
        alike.check_data(setup.derived(), setup.dataset.splits)
        start = _start(setup, run_dir)  # before anything is written
        described = environment.describe()
        resumed = distributed.on_first_process(
            lambda: run_dir.start(config, setup.derived(), described)
        )
        if resumed and first:
            _tell_decoder(setup, run_dir)
        settings = config.checkpoint
        checkpoints = Checkpoints(
            run_dir.checkpoints,
            keep_latest=settings.keep_latest,
            keep_best=settings.keep_best,
            best_metric=settings.best_metric,
            check=run_dir.check_held,
        )
        with checkpoints, stop:
            try:
                alike.check_shared(run_dir)
                if first and (spread := configs.spread_groups(config, setup.mesh.size)):
                    distributed.say(spread)
                executables = Executables(setup, distributed.say if first else _silent)
                executables.needs.check()
                if checkpoints.latest_step() != setup.resolved.total_steps:  # or nothing is saved
                    checkpoints.check_bucket()
                    checkpoints.check_space(setup.abstract_state())
                restored = checkpoints.restore(setup.abstract_state())
                for asker, asked in enumerate(distributed.gathered(stop.status)):
                    if asked is not None:  # before what may take minutes, such as compiling
                        _tell_stopped(restored[1] if restored else 0, setup, workdir, asker)
                        return int(asked)
                if restored is None:  # before the state takes any memory
                    phases = setup.family.phases(setup.resolved.total_steps)
                    begin = next(phase for phase in phases if phase.steps)
                    executables.get(begin, setup.inputs.arrays(0))
            except UserError:
                # The config may have to change: this one must not stay.
                with contextlib.suppress(RunDirError, OSError):  # or the error would not be told
                    run_dir.withdraw()
                raise
            state, done = restored if restored is not None else (_begin(setup, run_dir, start), 0)
            del start  # whose arrays are in the state now
            if first and done:
                print(f"Resuming {run_dir.path} at step {done}.", file=sys.stderr)
            elif first:
                overview = parameter_overview.get_parameter_overview(
                    state.params, include_stats=False
                )
                run_dir.write_text("parameters.txt", f"{overview}\n")
            loop = Loop(setup, run_dir, checkpoints, others, executables, state, done)
            with loop.writer, budget.explained(config, setup.mesh.size):
                status = loop.run()
                if status is None:
                    summarise(setup, run_dir, loop.writer, loop.state, loop.evaluator, loop.seconds)
        if status is not None:
            _tell_stopped(loop.done, setup, workdir, others.asker)
        return status or 0


def _tell_stopped(done: int, setup: Setup, workdir: str, asker: int | None) -> None:
    if distributed.is_first():
        who = f", as process {asker} was asked to" if asker else ""
        distributed.say(
            f"Stopped at step {done} of {setup.resolved.total_steps}{who}; everything is saved. "
            f"Resume with the same command (--workdir={workdir})."
        )


def _start(setup: Setup, run_dir: RunDir) -> transfer.Start | None:
    """The weights to begin with, of a run that has not begun; what it goes on from needs none."""
    begun = Checkpoints(run_dir.checkpoints, read_only=True).latest_step() is not None
    return None if begun else transfer.start(setup)


def _begin(setup: Setup, run_dir: RunDir, start: transfer.Start | None) -> TrainState:
    if start is None:
        return setup.init_state()
    run_dir.write_json("init.json", start.record)
    if run_dir.write:
        print(start.text, file=sys.stderr)
    return setup.init_state(start.given)


def _silent(_: str) -> None:
    """Of the processes beside the first one."""


def _tell_decoder(setup: Setup, run_dir: RunDir) -> None:
    """Says so where a resumed run will see other pixels than it would have."""
    before, now = run_dir.derived().get("data", {}).get("decoder"), setup.inputs.decoder
    if before and before != now:
        print(
            f"The images of this run were decoded by {before}, and now are by {now}: their pixels "
            f"differ a little. To go on as before, install {before} (data.decoder=auto takes "
            "OpenCV where it is installed).",
            file=sys.stderr,
        )

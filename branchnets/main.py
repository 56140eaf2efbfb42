"""Trains or evaluates a config.

python -m branchnets.main --config=configs/coded_digits.py --workdir=runs/coded_digits
python -m branchnets.main --mode=eval --workdir=runs/coded_digits

Any field of the config is set by --config.section.field=value; arguments of a config file follow
its name: --config=configs/coded_digits.py:smoke,seed=3.  --mode=eval reads the config of the run
directory; a field given beside it holds for the evaluation alone: another data set, another size
of images (--config.eval.image_size=224), or batch-norm statistics taken anew over training batches
(--config.bn_reestimation.batches=100).
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from branchnets.engine.config import CommandLine


def _flags() -> flags.FlagValues:
    own = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "Run directory.", flag_values=own)
    flags.DEFINE_enum("mode", "train", ["train", "eval"], "What to do.", flag_values=own)
    flags.DEFINE_string(
        "config", None, "Config file, with arguments after a colon.", flag_values=own
    )
    flags.DEFINE_string(
        "checkpoint", "latest", "What --mode=eval reads: latest, best or a step.", flag_values=own
    )
    flags.DEFINE_string(
        "coordinator_address",
        None,
        "HOST:PORT of process 0, where several processes train one run. With --num_processes and "
        "--process_id; on a TPU pod and under SLURM none of the three is needed.",
        flag_values=own,
    )
    flags.DEFINE_integer(
        "num_processes", None, "How many processes train the run.", flag_values=own
    )
    flags.DEFINE_integer("process_id", None, "Which one this is, from 0.", flag_values=own)
    flags.DEFINE_integer(
        "initialization_timeout",
        300,
        "Seconds to wait for all processes to arrive.",
        lower_bound=1,
        flag_values=own,
    )
    return own


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    from branchnets.engine import config as configs
    from branchnets.engine.hosts import distributed
    from branchnets.engine.hosts.peers import joined, leave
    from branchnets.engine.stopping import StopRequest
    from branchnets.errors import UserError

    own = _flags()
    try:
        command = configs.parse_command_line(list(argv or sys.argv), own, usage=__doc__ or "")
        if not own.workdir:
            raise configs.ConfigError("no run directory given: --workdir=runs/NAME")
        config = _checked(command, own)
        _start(own)
        if config is not None:
            return _train(config, own)
        with joined(StopRequest()):
            return _evaluate(command, own)
    except UserError as error:
        who = f"process {distributed.process()}: " if distributed.several() else ""
        print(f"error: {who}{error}", file=sys.stderr, flush=True)
        return leave(error, error.exit_status)
    except BaseException as error:  # a bug, or a second Ctrl-C
        if not distributed.several():
            raise
        traceback.print_exc()
        return leave(error, 130 if isinstance(error, KeyboardInterrupt) else 1)


def _checked(command: CommandLine, own: flags.FlagValues) -> ConfigDict | None:
    """The config to train; what is wrong with the words is told before anything is started."""
    from branchnets.engine import config as configs
    from branchnets.engine.records import rundir

    rundir.located(own.workdir)
    if own.mode == "train":
        return command.load()
    if command.config is not None:
        raise configs.ConfigError("--mode=eval takes the config of the run; leave --config out.")
    return None


def _start(own: flags.FlagValues) -> None:
    from branchnets.engine.hosts import distributed

    distributed.initialize(
        own.coordinator_address, own.num_processes, own.process_id, own.initialization_timeout
    )


def _train(config: ConfigDict, own: flags.FlagValues) -> int:
    from branchnets.engine.train import train

    return train(config, own.workdir)


def _evaluate(command: CommandLine, own: flags.FlagValues) -> int:
    from branchnets import confusion
    from branchnets.engine import config as configs
    from branchnets.engine.evaluate import scalars
    from branchnets.engine.hosts import alike, distributed
    from branchnets.engine.records.logging import format_table
    from branchnets.engine.records.rundir import RunDir
    from branchnets.engine.runs import load_run

    run_dir = RunDir(own.workdir, write=False)
    config = configs.apply_overrides(run_dir.config(), command.overrides)
    alike.check(config, own.workdir)
    run = load_run(own.workdir, own.checkpoint, config=config)
    title = f"at step {run.step}"
    if run.state.ema:
        title += ", averaged weights"
    # Of a run that was trained with it, the last statistics are such ones already.
    asked = any("bn_reestimation.batches" in word for word in command.overrides)
    if asked and (batches := config.bn_reestimation.batches):
        run = run.reestimated(batches)
        title += f", batch norm over {batches} training batches"
    if config.eval.image_size is not None:
        title += f", images of {config.eval.image_size}x{config.eval.image_size}"
    split = config.eval.split or "test"
    metrics = run.evaluate(split)
    if not distributed.is_first():
        return 0
    title = f"{config.data.name}/{split} {title}"
    print(format_table(sorted(scalars(metrics).items()), (title, "value")))
    print(f"\n{confusion.words(confusion.matrices(metrics)[''], run.dataset.class_names)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The training loop: steps, looks at the metrics, evaluations, checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from branchnets.engine import budget, evaluate
from branchnets.engine import mesh as meshes
from branchnets.engine.executable import Executables
from branchnets.engine.hosts import distributed
from branchnets.engine.hosts.peers import Alone, Peers
from branchnets.engine.profiling import Profile, input_part
from branchnets.engine.records.logging import MetricWriter, read_metrics
from branchnets.engine.records.progress import Progress
from branchnets.engine.records.rundir import RunDir
from branchnets.engine.reestimate import reestimated
from branchnets.engine.saving.checkpoint import Checkpoints
from branchnets.engine.setup import Setup
from branchnets.engine.state import TrainState
from branchnets.engine.step import Tally
from branchnets.engine.stopping import PEER_LOST
from branchnets.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    SaveError,
    TrainingError,
)
from branchnets.families.base import Phase

#: Steps that the host may be ahead of the devices: enough to keep them busy, few enough to stop.
_AHEAD = 2


@dataclasses.dataclass
class Loop:
    """One stretch of training, from a state to the end or to a request to stop.

    Attributes:
      done: steps done.
    """

    setup: Setup
    run_dir: RunDir
    checkpoints: Checkpoints
    peers: Peers | Alone
    executables: Executables
    state: TrainState
    done: int

    def __post_init__(self) -> None:
        setup, resolved = self.setup, self.setup.resolved
        first = jax.process_index() == 0
        self.writer = MetricWriter(
            self.run_dir.path, start_step=self.done, enabled=first, check=self.run_dir.check_held
        )
        self.progress = Progress(
            resolved.total_steps, batch_size=setup.config.batch_size, enabled=first
        )
        self.evaluator = evaluate.Evaluator(setup.family, setup.config.seed)
        # Once for the whole run: its normalisation is compiled anew with every instance.
        self._validation = setup.evaluation_input(setup.validation_split)
        self._before = _seconds_before(self.run_dir) if first else 0.0  # others write no metrics
        self._started = time.monotonic()
        self._saved = self.done if self.done else None
        self._missed = False  # the newest save that was due
        self._unreadable = 0
        # Where an input may fail, no process may be further ahead of it than its batches last.
        shared = jax.process_count() > 1 and setup.dataset.streamed
        self._ahead = 1 if shared else _AHEAD
        self._markers: list[jax.Array] = []
        self._tally: Tally | None = None
        self._told = not first
        self.executables.say = self.progress.message
        self._profile = Profile(
            setup.config.profile,
            self.run_dir.path / "profile",
            begin=self.done,
            end=resolved.total_steps,
            drain=lambda: jax.block_until_ready((self.state, self._tally)),
            say=self.progress.message,
        )

    def run(self) -> int | None:
        """Trains; None at the end of the run, else the status to stop with."""
        try:
            self._make_up()
            begin = 0
            for phase in self.setup.family.phases(self.setup.resolved.total_steps):
                end = begin + phase.steps
                if self.done < end:
                    if self.done == begin:
                        entered = self.setup.family.enter_phase(self.state, phase)
                        # Where they were, if not there already: the step is compiled for it.
                        self.state = jax.device_put(entered, meshes.replicated(self.setup.mesh))
                    status = self._run_phase(phase, end)
                    if status is not None:
                        return status
                begin = end
            return None
        finally:
            self._profile.close()
            self.progress.close()

    def _run_phase(self, phase: Phase, end: int) -> int | None:
        setup = self.setup
        arrays = self._arrays()
        with self._saving_first():  # a later phase's step may need more memory than there is
            executable = self.executables.get(phase, arrays)
        self._look()  # at the rest of the phase before
        self._empty_tally = executable.empty_tally
        self._tally = self._empty_tally()
        self.progress.message(
            f"{setup.config.model.name} on {setup.dataset.name}: steps {self.done} to {end}"
        )
        while self.done < end:
            with self._profile.step(self.done, executable.step):
                arrays = self._arrays()
                self.state, self._tally, marker = executable.step(self.state, arrays, self._tally)
            self.done += 1
            self._wait(marker)
            self._after_step()
            if self.setup.inputs.failure is not None and not isinstance(self.peers, Alone):
                self.peers.ask(PEER_LOST)  # while there are batches for the steps up to there
            status = self.peers.at(self.done)
            if status is not None:
                self._look()
                self._save(None)
                if status == PEER_LOST:
                    self._tell_failure()
                return status
        return None

    def _tell_failure(self) -> None:
        """Raises why the processes have stopped: of several, the input of one has failed."""
        self.checkpoints.wait()  # for all of them: after this none can
        if self.setup.inputs.failure is not None:
            raise self.setup.inputs.failure
        assert isinstance(self.peers, Peers)
        self.peers.wait_for_failure()

    def _arrays(self) -> Any:
        """What the next step needs."""
        with self._saving_first(), input_part():
            return self.setup.inputs.arrays(self.done)

    @contextlib.contextmanager
    def _saving_first(self) -> Iterator[None]:
        """Saves what was trained where something beside the steps fails, as the input may."""
        try:
            yield
        except (ConfigError, DataError, TrainingError):
            # Of several processes, the others have begun steps that this one cannot do.
            if jax.process_count() == 1:
                self._look()
                self._save(None)
            raise

    def _wait(self, marker: jax.Array) -> None:
        # Without this the host runs far ahead, and Ctrl-C would wait for all that is queued.
        self._markers.append(marker)
        if len(self._markers) > self._ahead or self.done == 1:
            jax.block_until_ready(self._markers.pop(0))

    def _after_step(self) -> None:
        resolved = self.setup.resolved
        evaluate_now = self._is_due(resolved.eval_every_steps)
        save_now = self._is_due(resolved.checkpoint_every_steps)
        if evaluate_now or save_now or self.done % resolved.log_every_steps == 0:
            self._look()
        metrics = self._examine() if evaluate_now else None
        if save_now:
            self._save(metrics, may_miss=True)
        # A save that failed is made up for now, not when the next one is due.
        elif self._has_failed(self.checkpoints.check_for_errors):
            self._save(None, may_miss=True, failed=True)

    def _is_due(self, every: int) -> bool:
        return self.done == self.setup.resolved.total_steps or self.done % every == 0

    def _make_up(self) -> None:
        """Does what failed, or was not reached, after the step that it goes on from was saved."""
        resolved = self.setup.resolved
        if not self.done or not self._is_due(resolved.eval_every_steps):
            return
        if self.checkpoints.metrics(self.done) is None:
            metrics = self._examine()
            if self._is_due(resolved.checkpoint_every_steps):
                self.checkpoints.replace(self.done, self.state, metrics)

    def _examine(self) -> dict[str, float]:
        with self._saving_first():
            if self.done == self.setup.resolved.total_steps:
                self._reestimate()
            return self._evaluate()

    def _look(self) -> None:
        """Reads the interval's tally, writes it, and stops the run if an update was not finite."""
        tally = jax.device_get(self._tally)
        if tally is None or not tally.steps:
            return
        if tally.first_bad_step >= 0:
            terms = [name for name, bad in tally.bad.items() if bad]
            raise TrainingError(
                f"the update of step {int(tally.first_bad_step)} was not finite "
                f"({', '.join(terms)}). It was discarded, and nothing after it was saved; the "
                f"newest checkpoint is of step {self._saved or 'none'}. A lower "
                "--config.optimizer.learning_rate, a longer schedule.warmup_epochs or "
                "optimizer.grad_clip often helps; these want a new --workdir."
            )
        self._tally = self._empty_tally()
        metrics = {name: evaluate.mean(*pair) for name, pair in tally.metrics.items()}
        metrics["learning_rate"] = float(self.setup.rate(jnp.asarray(self.done - 1)))
        self.progress.update(self.done, loss=metrics["loss"], accuracy=metrics["accuracy"])
        self._tell_time()
        if rate := self.progress.examples_per_second:
            metrics["examples_per_second"] = rate
        if self.setup.dataset.streamed:  # images that others stood for, in this interval
            total = distributed.total(self.setup.inputs.unreadable)
            metrics["unreadable"], self._unreadable = total - self._unreadable, total
        metrics["seconds"] = self.seconds
        self.writer.write(self.done, metrics, split="train", epoch=self._epoch)

    def _tell_time(self) -> None:
        """Once, when the rate is known: how long the run will take."""
        rate, resolved, config = self.progress.settled_rate, self.setup.resolved, self.setup.config
        if self._told or not rate:
            return
        self._told = True
        left = (resolved.total_steps - self.done) * config.batch_size / rate
        epoch = resolved.steps_per_epoch * config.batch_size / rate
        self.progress.message(budget.expected(self.seconds, left, epoch, config.epochs))

    @property
    def seconds(self) -> float:
        """Training time of the run in seconds, that before an interruption included."""
        return round(self._before + time.monotonic() - self._started, 1)

    @property
    def _epoch(self) -> float:
        return self.done / self.setup.resolved.steps_per_epoch

    def _reestimate(self) -> None:
        """Takes batch-norm statistics anew, from the batches that further steps would have."""
        setup, batches = self.setup, self.setup.config.bn_reestimation.batches
        if not batches:
            return
        self.progress.message(f"batch-norm statistics of {batches} training batches ...")
        with self.progress.pause():
            total = setup.resolved.total_steps
            self.state = reestimated(setup, self.state, setup.inputs, total, batches)

    def _evaluate(self) -> dict[str, float]:
        split = self.setup.validation_split
        with self.progress.pause():
            metrics = self.evaluator(self.state.averaged, self.state.extra, self._validation)
        found = evaluate.scalars(metrics)
        self.writer.write(self.done, found, split=split, epoch=self._epoch)
        self.progress.message(
            f"step {self.done} · {split} accuracy {found['accuracy']:.2%}, "
            f"cross-entropy {found['cross_entropy']:.4g}"
        )
        return found

    def _save(
        self, metrics: dict[str, float] | None, may_miss: bool = False, failed: bool = False
    ) -> None:
        if self._saved == self.done:
            return
        with self.progress.pause():
            failed = self._has_failed(self.checkpoints.wait) or failed
            try:
                self.writer.flush()  # a resumed run counts on the lines up to its step
                self.checkpoints.save(self.done, self.state, metrics)
                if failed:
                    self.checkpoints.wait()
            except SaveError as error:
                self._miss(error, may_miss)
                return
        self._saved, self._missed = self.done, False

    def _miss(self, error: SaveError, allowed: bool) -> None:
        """Goes on without a save, once, where a service failed: what comes next may go well."""
        last = self.done == self.setup.resolved.total_steps
        if self._missed or last or not allowed or jax.process_count() > 1:
            raise error
        self._missed = True
        self.progress.message(f"{error} Going on, without a checkpoint of step {self.done} ...")

    def _has_failed(self, check: Callable[[], None]) -> bool:
        """Whether the save in the background has failed; says so. The next one may go well."""
        try:
            check()
        except CheckpointError as error:
            if jax.process_count() > 1:  # it is the first process that writes: the others wait
                raise
            self.progress.message(f"{error} Trying again, with step {self.done} ...")
            return True
        return False


def _seconds_before(run_dir: RunDir) -> float:
    """The training time that the metrics of an interrupted run tell of."""
    file = run_dir.path / "metrics.jsonl"
    lines = read_metrics(file) if file.exists() else []
    return max((line.get("seconds", 0.0) for line in lines), default=0.0)

"""Checkpoints on disk: saved in the background, checked before use, restored on any devices.

A step is a folder `<step>/` that orbax writes and renames into place when it is complete; on an
object store it writes it in place, and a file into it when it is complete. Into it
goes `files.json`, the size and checksum of every file, so that a step is either whole or known to
be damaged: neither orbax nor tensorstore notices every change to a file, and neither can tell a
damaged file from a model that has changed.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util

from branchnets import storage
from branchnets.engine.hosts import distributed, failure
from branchnets.engine.leaves import named, nbytes
from branchnets.engine.saving import disk, filelist, orbaxlog, reading
from branchnets.engine.saving.stored import Stored
from branchnets.errors import CheckpointError, PeerLost, SaveError, StorageError, UserError
from branchnets.storage import AnyPath, as_path

# Written by orbax after the list of files is made; nothing of the state is in them.
_REWRITTEN = ("_CHECKPOINT_METADATA", "commit_success.txt")


class Checkpoints:
    """The checkpoints of one run.

    The newest `keep_latest` steps are kept, and the `keep_best` with the best metric; a step that
    was saved without metrics, in the middle of an epoch, is never a best one. Every process calls
    every method at the same step.

    Args:
      directory: Where the steps are, on a file system that all processes see.
      keep_latest: Newest steps to keep, at least 1.
      keep_best: Best steps to keep besides.
      best_metric: Name of the metric that decides which is best; None = the newest is the best.
      mode: Whether the largest ("max") or the smallest ("min") value is best.
      asynchronous: Whether `save` returns before the files are written.
      read_only: Never write, rename or delete anything, as in evaluation.
      report: Prints a message for the user; to standard error by default.
      check: Raises a UserError where nothing is to be written any more; asked before every save,
        and before it counts.
    """

    def __init__(
        self,
        directory: str | AnyPath,
        *,
        keep_latest: int = 1,
        keep_best: int = 1,
        best_metric: str | None = None,
        mode: str = "max",
        asynchronous: bool = True,
        read_only: bool = False,
        report: Callable[[str], None] = distributed.say,
        check: Callable[[], None] = lambda: None,
    ):
        if keep_latest < 1:
            raise ValueError("keep_latest must be at least 1")
        if mode not in ("max", "min"):
            raise ValueError(f"mode is 'max' or 'min', not {mode!r}")
        place = as_path(directory)
        self.directory = place.absolute() if isinstance(place, Path) else place
        self._keep_latest, self._keep_best = keep_latest, keep_best
        self._metric, self._sign = best_metric, 1 if mode == "max" else -1
        self._asynchronous, self._read_only, self._check = asynchronous, read_only, check
        self._stored = Stored(self.directory, read_only, report)
        self._manager: ocp.CheckpointManager | None = None
        self._saving: int | None = None
        self._refused: UserError | None = None  # by `check`, while a save was on its way
        orbaxlog.quieten()

    # What there is

    def all_steps(self) -> list[int]:
        """Return the complete steps in ascending order, once a save in progress is done."""
        self.wait()
        return self._stored.steps()

    def latest_step(self) -> int | None:
        """Return the newest step, checked or not; None if there is none."""
        self.wait()
        return _on_first_process(lambda: max(self.all_steps(), default=None))

    def best_step(self) -> int | None:
        """Return the step with the best metric, the later of equals; the newest without one."""
        self.wait()
        return _on_first_process(self._find_best)

    def _find_best(self) -> int | None:
        steps = self.all_steps()
        scores = {step: self._score(self._metrics(step)) for step in steps}
        scored = [step for step in steps if scores[step] > -math.inf]
        return max(scored or steps, key=lambda step: (scores[step], step), default=None)

    def metrics(self, step: int) -> dict[str, float] | None:
        """Return the metrics that a step was saved with, or None; the same on all processes.

        Raises:
          CheckpointError: It cannot be found out.
        """
        return _on_first_process(lambda: self._metrics(step))

    def _metrics(self, step: int) -> dict[str, float] | None:
        try:
            text = (self._stored.folder(step) / "metrics" / "metrics").read_text()
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return json.loads(text)
        except ValueError:
            return None

    def _score(self, metrics: Mapping[str, Any] | None) -> float:
        """Return a number whose largest value is best; without the metric it is the worst."""
        value = (metrics or {}).get(self._metric or "")
        return self._sign * value if value is not None and math.isfinite(value) else -math.inf

    # Saving

    def save(self, step: int, state: Any, metrics: Mapping[str, Any] | None = None) -> bool:
        """Save a state; the arrays are copied before this returns, and may be donated after.

        Args:
          step: Updates done so far.
          state: A pytree of arrays. What is stored is its leaves by their paths, not its classes.
          metrics: What an evaluation at this step gave; arrays among them are left out.

        Returns:
          False if the step was there already, and nothing was written.

        Raises:
          CheckpointError: This save, or the one before it, could not be written.
        """
        if self._read_only:
            raise CheckpointError(f"{self.directory} was opened for reading only.")
        self.wait()
        if _on_first_process(lambda: self._is_there(step)):
            return False
        manager = self._open()
        leaves = {
            path: leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
            for path, leaf in named(state).items()
            if np.size(leaf)  # orbax refuses arrays without elements
        }
        self.check_space(leaves)
        self._saving = step
        orbaxlog.begin()
        with self._writing():
            manager.save(
                step,
                args=ocp.args.PyTreeSave(traverse_util.unflatten_dict(leaves)),
                metrics=None if metrics is None else _scalars(metrics),
                force=True,
            )
        if not self._asynchronous:
            self.wait()
        return True

    def _is_there(self, step: int) -> int:
        self._check()
        return int(step in self.all_steps())

    def replace(self, step: int, state: Any, metrics: Mapping[str, Any] | None = None) -> None:
        """Save a state in place of the one of a step, which stays until the other one is whole.

        Args and errors are those of `save`.
        """
        self.close()  # the steps that orbax knows are read anew at the next save
        _on_first_process(lambda: self._is_there(step))
        _on_first_process(self._stored.put_right)  # what a failed try has left
        with Checkpoints(self._stored.new(step), asynchronous=False) as fresh:
            fresh.save(step, state, metrics)
        _on_first_process(lambda: self._stored.exchange(step))

    def check_space(self, state: Any) -> None:
        """Refuse what the disk has no space for, before anything is written.

        Args:
          state: What is to be saved: arrays or their shapes.

        Raises:
          CheckpointError: Less is free than the arrays take. What is there stays.
        """
        needed = nbytes(state)

        def check() -> int:
            free = disk.free(self.directory)
            if free is not None and free < needed:
                raise CheckpointError(
                    f"a checkpoint takes {needed / 1e6:.3g} MB, and {free / 1e6:.3g} MB are free "
                    f"on the disk of {self.directory}. {self._go_on()}"
                )
            return 0

        _on_first_process(check)

    def check_bucket(self) -> None:
        """Refuse a bucket that orbax could not keep checkpoints in, before anything is written.

        Raises:
          CheckpointError: There is none, or the account lacks what is named.
        """

        def check() -> None:
            try:
                storage.check_bucket(self.directory)
            except StorageError as error:
                raise CheckpointError(str(error)) from error

        _on_first_process(check)

    def wait(self) -> None:
        """Return when the save in progress is on disk.

        Raises:
          CheckpointError: It could not be written.
        """
        if self._manager is None or self._saving is None:
            return
        with self._writing():
            if distributed.several():  # of which the one that writes may fail
                for _ in distributed.waits():
                    if not self._manager.is_saving_in_progress():
                        break
                    self.check_for_errors()
            self._manager.wait_until_finished()
        self._stored.written(self._saving)
        self._saving = None

    def check_for_errors(self) -> None:
        """Return at once, or raise if the save in progress has failed already.

        Raises:
          CheckpointError: It could not be written.
        """
        if self._manager is None or self._saving is None:
            return
        # Not by orbax's own check: it takes an error from the thread that waits for it, which would
        # take the step for complete and delete older ones; or finds that one has taken it already.
        if distributed.several():
            with self._writing():
                if (logged := orbaxlog.failure()) is not None:
                    raise logged
        elif not self._manager.is_saving_in_progress():
            self.wait()

    def close(self) -> None:
        """Wait for the save in progress and release the threads.

        Raises:
          CheckpointError: It could not be written.
        """
        self.wait()
        if self._manager is not None:
            manager, self._manager = self._manager, None
            manager.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        lost = isinstance(error, PeerLost) or failure.of_jax(error)
        if not lost or jax.process_count() == 1:  # a save would wait for those that are no more
            self.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Raises CheckpointError in place of whatever orbax raises about a save."""
        try:
            yield
        except (CheckpointError, PeerLost):
            raise
        except Exception as error:
            if distributed.several() and failure.of_jax(error):
                raise  # of what waits for the other processes
            unwritten = self._unwritten(error)
            raise self._refused or unwritten from error

    def _unwritten(self, error: Exception) -> CheckpointError:
        # Orbax would raise the same again at every later call: the next save starts anew.
        self._manager, step, self._saving = None, self._saving, None
        kind = CheckpointError if isinstance(self.directory, Path) else SaveError
        return kind(
            f"the checkpoint of step {step} could not be written to {self.directory}: "
            f"{disk.reason(error)}. {self._go_on()}"
        )

    def _go_on(self) -> str:
        """What there is to go on from."""
        try:
            older = self._stored.steps()
        except OSError:  # of the same trouble
            return "Mend it, and the same command goes on from the newest one that is whole."
        if older:
            return "Older ones are whole: mend it, and the same command goes on from the newest."
        return "There is no older one: mend it, and the same command begins anew."

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is not None:
            return self._manager
        _on_first_process(self._stored.put_right)
        # Orbax reads the metrics of every step when it starts, and fails on damaged ones.
        _on_first_process(self._stored.set_aside_damaged)
        policies: list[Any] = [ocp.checkpoint_managers.LatestN(self._keep_latest)]
        if self._metric is not None:
            policies.append(
                ocp.checkpoint_managers.BestN(
                    get_metric_fn=self._score,
                    n=self._keep_best,
                    keep_checkpoints_without_metrics=False,
                )
            )
        options = ocp.CheckpointManagerOptions(
            best_fn=self._score,  # has the metrics stored
            preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(policies),
            cleanup_tmp_directories=True,  # left by an interrupted save
            async_options=ocp.options.AsyncOptions(post_finalization_callback=self._list_files),
        )
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(str(self.directory), options=options)
        except PeerLost:
            raise
        except Exception as error:
            if failure.of_jax(error):
                raise  # of the other processes
            raise CheckpointError(
                f"checkpoints cannot be kept in {self.directory}: {disk.reason(error)}."
            ) from error
        return self._manager

    def _list_files(self) -> None:
        """Write the list of files: orbax calls this when all are there, before the renaming."""
        if jax.process_index() != 0:
            return
        try:
            self._check()  # the one that has taken over has deleted what was not complete
        except StorageError:
            raise
        except UserError as error:
            self._refused = error
            raise
        (folder,) = (
            p
            for p in self.directory.iterdir()
            if p.name == str(self._saving) or p.name.startswith(f"{self._saving}.orbax")
        )
        filelist.write(folder, leave_out=_REWRITTEN)

    # Restoring

    def restore(
        self, template: Any, step: int | None = None, *, partial: bool = False
    ) -> tuple[Any, int] | None:
        """Read a state: the newest step that is whole, or the given one.

        A step whose files are missing, truncated or altered is set aside: renamed to
        `damaged-<step>`, with a message, and the next older one is used. A read-only instance
        leaves it where it is.

        Args:
          template: A pytree of arrays or `jax.ShapeDtypeStruct`s with the structure, shapes,
            dtypes and shardings wanted. The devices need not be those of the saving.
          step: The step to read; it has no substitute.
          partial: Whether the checkpoint may have leaves that the template lacks.

        Returns:
          (state, step), or None if nothing was ever saved here.

        Raises:
          CheckpointError: No step is whole; the given step is absent or damaged; or the saved
            state is of another structure, with the differing leaves named. No file is changed
            then, except that damaged steps have been set aside.
        """
        self.wait()
        if not self._read_only:
            _on_first_process(self._stored.put_right)
        chosen = _on_first_process(lambda: self._stored.choose(step))
        if chosen is None:
            return None
        return reading.state(self._stored.folder(chosen), template, partial), chosen

    def variables(
        self, step: int | None, sharding: jax.sharding.Sharding
    ) -> tuple[dict[str, jax.Array], int] | None:
        """Read the variables of a `TrainState` as they are evaluated, whatever network they are of.

        Args:
          step: As of `restore`.
          sharding: Where to put them.

        Returns:
          ({name, such as "params/stem/conv/kernel": array}, step), or None if nothing was ever
          saved here.

        Raises:
          CheckpointError: No step is whole, or the given one is absent or damaged.
        """
        self.wait()
        chosen = _on_first_process(lambda: self._stored.choose(step))
        if chosen is None:
            return None
        return reading.variables(self._stored.folder(chosen), sharding), chosen


def _scalars(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if np.ndim(value) == 0}


def _on_first_process(function: Callable[[], Any]) -> Any:
    """Return what `function` gives on the first process, on all of them.

    Raises:
      CheckpointError: raised by it, or in place of an OSError.
    """

    def explained() -> Any:
        try:
            return function()
        except OSError as error:
            kind = SaveError if isinstance(error, StorageError) else CheckpointError
            raise kind(f"the checkpoints cannot be read or kept: {error}") from error

    return distributed.on_first_process(explained)

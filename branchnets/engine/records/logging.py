"""Scalars to files, and tables to the terminal."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from branchnets.engine.records.events import Events
from branchnets.engine.records.mirror import Mirror
from branchnets.engine.records.progress import Progress
from branchnets.engine.records.rundir import replace
from branchnets.errors import RunDirError, SaveError, StorageError
from branchnets.storage import AnyPath, RemotePath, as_path, first_free

__all__ = ["MetricWriter", "Progress", "format_table", "read_metrics"]

_RESERVED = {"step", "epoch", "time", "split"}


class MetricWriter:
    """Writes metrics.jsonl and TensorBoard's event files.

    A line of metrics.jsonl is one JSON object: `step`, `split`, `time` (seconds since 1970),
    `epoch` where there is one, and the metrics by their names. Each (split, step) is there once,
    also when a run is resumed and does some steps again. A value that is not finite is null;
    an array is a list, and is not in the event files.

    Args:
      directory: The run directory. On an object store, where nothing can be appended, the files
        grow in a local folder and are uploaded whole, at most every half minute.
      start_step: The step that the run goes on from: what was written beyond it is dropped.
      enabled: Whether this process writes at all; on several, the first one alone does.
      clock: Gives the time in seconds since 1970.
      check: Raises a UserError where nothing is to be uploaded any more.

    Raises:
      RunDirError: The file cannot be written.
    """

    def __init__(
        self,
        directory: str | AnyPath,
        *,
        start_step: int = 0,
        enabled: bool = True,
        clock: Callable[[], float] = time.time,
        check: Callable[[], None] = lambda: None,
    ):
        self._clock = clock
        self._mirror: Mirror | None = None
        self._enabled = enabled
        self._written: set[tuple[str, int]] = set()
        if not enabled:
            return
        place = as_path(directory)
        self._file = place / "metrics.jsonl"
        try:
            if isinstance(place, RemotePath):
                self._mirror = Mirror(place, "metrics*.jsonl", check)
                folder = self._mirror.folder
            else:
                folder = place
            file = folder / "metrics.jsonl"
            resumed = file.exists()
            if resumed:
                self._written = _rewind(file, start_step, place)
            self._stream = file.open("a")
            self._events = Events(folder, start_step + 1 if resumed else None)
            self.flush()
        except OSError as error:
            self._discard()
            raise self._unwritten(error) from error

    def write(
        self,
        step: int,
        metrics: Mapping[str, Any],
        *,
        split: str = "train",
        epoch: float | None = None,
    ) -> None:
        """Write the metrics of a step, unless those of this split and step are there already.

        Args:
          step: Steps done.
          metrics: {name: number or array}.
          split: What they were measured on, such as "train", "validation" or "test".
          epoch: Epochs done.

        Raises:
          RunDirError: They cannot be written, because the disk is full for example.
        """
        if clash := _RESERVED & metrics.keys():
            raise ValueError(f"a metric cannot be called {', '.join(sorted(clash))}")
        step = int(step)
        if not self._enabled or (split, step) in self._written:
            return
        self._written.add((split, step))
        values = {name: np.asarray(value) for name, value in metrics.items()}
        line: dict[str, Any] = {"step": step, "split": split, "time": round(self._clock(), 3)}
        if epoch is not None:
            line["epoch"] = float(epoch)
        line |= {name: _finite(value.tolist()) for name, value in values.items()}
        with self._writing():
            self._stream.write(json.dumps(line, allow_nan=False) + "\n")
            self._stream.flush()
            for name, value in values.items():
                if value.ndim == 0:
                    self._events.add_scalar(f"{split}/{name}", float(value), step)
            if self._mirror is not None:
                self._mirror.tick()

    def flush(self) -> None:
        """Bring everything written to where a resumed run finds it.

        Raises:
          RunDirError: As `write`.
          SaveError: A service fails; nothing is lost, and the next flush may go well.
        """
        if not self._enabled or self._mirror is None:
            return
        with self._writing():
            self._events.flush()
        try:
            self._mirror.upload()
        except RunDirError:
            self._abandon()
            raise
        except StorageError as error:
            raise self._unwritten(error) from error

    def close(self) -> None:
        """Flush and close the files; raises as `write`."""
        if self._enabled:
            self._enabled = False
            try:
                self._stream.close()
                self._events.close()
                if self._mirror is not None:
                    self._mirror.upload()
            except OSError as error:
                raise self._unwritten(error) from error
            finally:
                self._discard()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Gives up where something cannot, or must not, be written."""
        try:
            yield
        except RunDirError:
            self._abandon()
            raise
        except OSError as error:
            self._abandon()
            raise self._unwritten(error) from error

    def _abandon(self) -> None:
        """Close the files without a word about what is lost: an error says it."""
        self._enabled = False
        for stream in (self._stream, self._events):
            with contextlib.suppress(OSError):
                stream.close()
        self._discard()

    def _discard(self) -> None:
        if self._mirror is not None:
            self._mirror.discard()

    def _unwritten(self, error: OSError) -> RunDirError:
        kind = SaveError if isinstance(error, StorageError) else RunDirError
        return kind(
            f"{self._file} or the events beside it cannot be written: {error.strerror}. "
            "Mend it: the same command goes on from the newest checkpoint, or begins anew where "
            "there is none."
        )

    def __enter__(self) -> MetricWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_metrics(file: str | AnyPath) -> list[dict[str, Any]]:
    """Return the lines of a metrics.jsonl; a last line cut short by a kill is left out."""
    return _parse(as_path(file))[0]


def _parse(file: AnyPath) -> tuple[list[dict[str, Any]], bool]:
    """Return the lines and whether one before the last is no line of ours."""
    lines, damaged = [], False
    texts = file.read_text(errors="replace").split("\n")
    for number, text in enumerate(texts):
        try:
            line = json.loads(text)
            lines.append({"step": int(line["step"]), "split": str(line["split"]), **line})
        except (ValueError, LookupError, TypeError):
            damaged |= bool(text) and number < len(texts) - 1
    return lines, damaged


def _rewind(file: Path, step: int, place: AnyPath) -> set[tuple[str, int]]:
    """Drop what lies beyond a step, and return the (split, step) pairs that stay.

    Args:
      file: To rewrite.
      step: To go on from.
      place: The folder that messages name.
    """
    lines, damaged = _parse(file)
    if damaged:  # not a torn end, so not ours to drop without a copy
        copy = file.with_name(
            first_free("metrics-damaged", ".jsonl", lambda name: file.with_name(name).exists())
        )
        shutil.copyfile(file, copy)
        print(
            f"{place / file.name} has damaged lines, which are dropped; a copy is in "
            f"{place / copy.name}.",
            file=sys.stderr,
        )
    kept: dict[tuple[str, int], dict[str, Any]] = {}
    for line in lines:
        if line["step"] <= step:
            kept.setdefault((line["split"], line["step"]), line)
    replace(file, "".join(json.dumps(line) + "\n" for line in kept.values()))
    return set(kept)


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None


def format_table(rows: Sequence[Sequence[Any]], headers: Sequence[str] = ()) -> str:
    """Return a table with aligned columns: text to the left, numbers to the right.

    Args:
      rows: Cells; floats are given to four significant digits, None as a dash.
      headers: Names of the columns.

    >>> print(format_table([("accuracy", 0.98125), ("parameters", 12345)], ("metric", "value")))
    metric       value
    ----------  ------
    accuracy    0.9812
    parameters  12,345
    """
    cells = [[_cell(value) for value in row] for row in rows]
    lines = [list(headers)] * bool(headers) + cells
    if not lines:
        return ""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    numeric = [
        all(isinstance(value, int | float | np.number | None) for value in column)
        for column in zip(*rows, strict=True)
    ] or [False] * len(widths)

    def text(line: Sequence[str]) -> str:
        parts = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        )
        return "  ".join(parts).rstrip()

    rule = ["  ".join("-" * width for width in widths)] if headers else []
    body = [text(line) for line in lines]
    return "\n".join(body[:1] + rule + body[1:])


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool | np.bool_ | str):
        return str(value)
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    return str(value)

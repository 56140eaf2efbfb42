"""The directory of a run, which says everything about it.

config.json       the config as given (`raw`) and the values derived from it (`resolved`)
environment.json  versions, machine, devices, commit, command line; environment-2.json and so on
                  for every later start
init.json         where the first weights come from, of a run that starts from trained ones
parameters.txt    name, shape and dtype of every parameter
metrics.jsonl     all scalars, one evaluation or logging interval a line
events.*          the same for TensorBoard
checkpoints/      the states to resume from
summary.json      the results of the finished run
per_class.csv     its accuracy on each class of the test split
confusion.csv     its test images by class (rows) and answer (columns)
profile/          the trace of some steps, if config.profile asked for one

On a disk a lock keeps other processes away, and files are written beside their place and renamed.
On an object store (`gs://`) every file is written whole in any case, and the directory is that of
the run that was started last: an earlier one finds that out before its next write, and stops.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from branchnets.engine.config.resolve import diff, from_plain, plain
from branchnets.engine.records.hold import Lock, Token, take
from branchnets.engine.records.samedata import other_data
from branchnets.errors import RunDirError, StorageError
from branchnets.storage import AnyPath, RemotePath, as_path, first_free


class RunDir:
    """A run directory; nothing is written until `start`.

    Args:
      path: The directory, which several processes share: on a mounted file system, or gs://.
      write: Whether this process writes. On several processes the first one alone does.

    Raises:
      RunDirError: The path is a file, or a URL of another kind.
    """

    def __init__(self, path: str | AnyPath, *, write: bool = True):
        self.path = located(path)
        self.write = write
        self._hold: Lock | Token | None = None
        self._made: tuple[str, ...] = ()  # by `start`, where there was no run
        try:
            taken = self.path.exists() and not self.path.is_dir()
            (self.path / "config.json").exists()
        except OSError as error:  # not allowed to look
            raise RunDirError(
                f"the run directory {self.path} cannot be read: {error.strerror}. Choose another "
                "--workdir."
            ) from error
        if taken:
            raise RunDirError(f"the run directory {self.path} is a file; choose another --workdir.")

    @property
    def checkpoints(self) -> AnyPath:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def exists(self) -> bool:
        """Whether a run was started here."""
        return (self.path / "config.json").exists()

    def config(self) -> ConfigDict:
        """Return the config of the run that is here, ready for overrides.

        Raises:
          RunDirError: There is no run here, or its config cannot be read.
        """
        return from_plain(self._saved()["raw"])

    def derived(self) -> dict[str, Any]:
        """Return what was derived from the config of the run that is here; raises as `config`."""
        return self._saved()["resolved"]

    def _saved(self) -> dict[str, Any]:
        file = self.path / "config.json"
        try:
            document = json.loads(file.read_text())
            document["raw"], document["resolved"]
            return document
        except (FileNotFoundError, NotADirectoryError):
            raise RunDirError(
                f"{self.path} is no run directory: it has no config.json. Train there first, or "
                "choose another --workdir."
            ) from None
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise RunDirError(f"{file} cannot be read: {error}") from error

    def start(
        self,
        config: ConfigDict,
        resolved: Mapping[str, Any],
        environment: Mapping[str, Any] | None = None,
    ) -> bool:
        """Create the run, or take up the one that is here; hold it until `close`.

        Args:
          config: The config as given.
          resolved: The values derived from it.
          environment: What `describe` of `branchnets.engine.records.environment` returns.

        Returns:
          True if there was a run already, with the same config.

        Raises:
          RunDirError: The run here has another config or other training data, another process
            holds it, or the directory cannot be written. Nothing in it was changed.
        """
        if self.exists:
            self._refuse_other(config, resolved)
        if not self.write:
            return self.exists
        if not self.exists and self.path.is_dir():
            found = sorted(p.name for p in self.path.iterdir() if not p.name.startswith("."))
            if found:
                raise RunDirError(
                    f"{self.path} is not empty and holds no run: {', '.join(found[:5])}. "
                    "Choose another --workdir."
                )
        self._hold = take(self.path)
        environment_name = self._environment_name()
        try:
            resumed = self.exists  # asked again: on a disk it is certain now that we are alone
            if resumed:
                self._refuse_other(config, resolved)
            else:
                document = {"raw": plain(config), "resolved": dict(resolved)}
                self.write_json("config.json", document)
                self._made = ("config.json", environment_name)
            if environment is not None:
                self.write_json(environment_name, environment)
        except BaseException:
            self.close()
            raise
        return resumed

    def check(self, config: ConfigDict) -> None:
        """Refuse a config that is not that of the run that is here; raises RunDirError."""
        if self.exists:
            self._refuse_other(config, {})

    def withdraw(self) -> None:
        """Take back a `start` that created the run, so that it may be started with another config.

        To be called before anything else is written; a run that was there already stays.

        Raises:
          RunDirError, OSError: Another run has taken over, or it cannot be taken back.
        """
        if self._made:
            self.check_held()
        for name in self._made:
            (self.path / name).unlink(missing_ok=True)
        self._made = ()

    def _refuse_other(self, config: ConfigDict, resolved: Mapping[str, Any]) -> None:
        # Filled up with the defaults of fields that did not exist when the run was started.
        changed = diff(self.config(), config)
        if changed:
            raise RunDirError(
                f"{self.path} holds a run with another config:\n  "
                + "\n  ".join(changed)
                + "\nNothing was changed. Give that config to resume the run, --mode=eval to "
                "evaluate it, or a new --workdir to train with this one."
            )
        if other := other_data(self.derived(), resolved):
            raise RunDirError(
                f"{self.path} holds a run on other training data: {other}. Going on would change "
                "their order, and train on what was held out. Nothing was changed. Give the data "
                "of the run to resume it (--config.data.data_dir), or a new --workdir."
            )

    def check_held(self) -> None:
        """Refuse to go on where another run has taken over the directory on an object store.

        Raises:
          RunDirError: It has.
          StorageError: That cannot be found out, at this time.
        """
        if self._hold is not None:
            self._hold.check()

    def sources(self) -> list[dict[str, Any]]:
        """What ran at every start, oldest first: "commit", "dirty"; empty where it is not known."""
        files: Iterable[AnyPath] = self.path.glob("environment*.json")
        return [_source(file) for file in sorted(files, key=lambda f: (len(f.name), f.name))]

    def _environment_name(self) -> str:
        return first_free("environment", ".json", lambda name: (self.path / name).exists())

    def write_json(self, name: str, document: Mapping[str, Any]) -> AnyPath:
        """Write a JSON file whole or not at all, with sorted keys; return its path.

        Raises:
          RunDirError: It cannot be written.
        """
        return self.write_text(name, json.dumps(document, indent=2, sort_keys=True) + "\n")

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Return what `write_json` wrote, or None.

        Raises:
          StorageError: A service fails, which does not say that there is none.
        """
        try:
            return json.loads((self.path / name).read_text())
        except StorageError:
            raise
        except (OSError, ValueError):
            return None

    def write_text(self, name: str, text: str) -> AnyPath:
        """Write a text file whole or not at all; return its path; raises as `write_json`."""
        file = self.path / name
        if self.write:
            try:
                self.check_held()
                replace(file, text)
            except OSError as error:
                raise RunDirError(f"{file} cannot be written: {error.strerror}.") from error
        return file

    def close(self) -> None:
        """Let others use the directory."""
        if self._hold is not None:
            self._hold.release()
            self._hold = None

    def __enter__(self) -> RunDir:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def located(path: str | AnyPath) -> AnyPath:
    """The absolute path of a run directory, or its URL, without a look at it.

    Raises:
      RunDirError, ConfigError: No path, or a URL that checkpoints are not kept at.
    """
    place = as_path(path)
    if isinstance(place, RemotePath) and place.scheme != "gs":
        raise RunDirError(
            f"the run directory {path} is a URL of a kind that checkpoints are not kept at. "
            "Give gs://BUCKET/FOLDER, or mount it and give its path."
        )
    return place.absolute() if isinstance(place, Path) else place


def replace(file: AnyPath, text: str) -> None:
    """Write a file so that a reader, or a crash, finds the old contents or the new ones."""
    if isinstance(file, RemotePath):
        file.write_text(text)
        return
    with tempfile.NamedTemporaryFile(
        "w", dir=file.parent, prefix=f".{file.name}.", delete=False
    ) as stream:
        try:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(stream.name, 0o666 & ~umask)  # the temporary file is private
            os.replace(stream.name, file)
        except BaseException:
            Path(stream.name).unlink(missing_ok=True)
            raise


def _source(file: AnyPath) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text())["source"])
    except StorageError:
        raise
    except (OSError, ValueError, LookupError, TypeError):
        return {}

"""The steps that a directory of checkpoints holds: which there are, and which are whole."""

from __future__ import annotations

from collections.abc import Callable

from branchnets import storage
from branchnets.engine.saving import filelist
from branchnets.errors import CheckpointError, StorageError
from branchnets.storage import AnyPath, RemotePath

#: On an object store nothing can be renamed into place: orbax writes this file into a step, last.
COMMITTED = "commit_success.txt"
_OLD, _NEW = "replaced-", "new-"  # folders while a step is exchanged


class Stored:
    """The complete steps of a directory; damaged ones are set aside, or passed over.

    Args:
      directory: where the steps are; it need not exist.
      read_only: never rename anything.
      report: prints a message for the user.
    """

    def __init__(self, directory: AnyPath, read_only: bool, report: Callable[[str], None]):
        self.directory = directory
        self._read_only, self._report = read_only, report
        self._whole: set[int] = set()  # steps whose files were checked, or written, here

    def steps(self) -> list[int]:
        """The complete steps in ascending order, whole or damaged."""
        if not self.directory.is_dir():
            return []
        names = {p.name.removeprefix(_OLD) for p in self.directory.iterdir() if p.is_dir()}
        steps = sorted(int(name) for name in names if name.isdecimal())
        if isinstance(self.directory, RemotePath):  # where a save on its way has the step's name
            return [step for step in steps if any(map(_complete, self._places(step)))]
        return steps

    def _places(self, step: int) -> tuple[AnyPath, AnyPath]:
        """Where a step may be: in its own place, or where an exchange was cut short."""
        return self.directory / str(step), self.directory / f"{_OLD}{step}"

    def folder(self, step: int) -> AnyPath:
        """Where a step is."""
        own, old = self._places(step)
        return own if _complete(own) or not _complete(old) else old  # where nobody may put it right

    def new(self, step: int) -> AnyPath:
        """Where another state of a step is written, as `new(step) / str(step)`, to exchange it."""
        return self.directory / f"{_NEW}{step}"

    def exchange(self, step: int) -> None:
        """Puts what was written to `new(step)` in the place of a step, which is deleted."""
        own, old = self._places(step)
        _move(own, old)
        _move(self.new(step) / str(step), own)
        self.put_right()

    def put_right(self) -> None:
        """Finishes exchanges that a crash cut short, or takes them back; marks what is whole."""
        for old in self._exchanged(_OLD):
            step = int(old.name.removeprefix(_OLD))
            own, new = self.directory / str(step), self.new(step) / str(step)
            if not _complete(own):  # between the two renames
                whole = _complete(new) and filelist.damage(new) is None
                _move(new if whole else old, own)
            storage.remove_folder(old)
        for new in self._exchanged(_NEW):
            storage.remove_folder(new)
        if isinstance(self.directory, RemotePath):
            for folder in self.directory.iterdir():
                if folder.name.isdecimal() and not _marked(folder) and _complete(folder):
                    _mark(folder)

    def _exchanged(self, prefix: str) -> list[AnyPath]:
        found = self.directory.glob(f"{prefix}*")
        return [p for p in found if p.name.removeprefix(prefix).isdecimal()]

    def written(self, step: int) -> None:
        """Takes a step as whole, because it has just been written."""
        self._whole.add(step)

    def choose(self, step: int | None) -> int | None:
        """The step to restore: the newest that is whole, or the given one.

        Returns:
          The step; None where nothing was ever saved.

        Raises:
          CheckpointError: no step is whole, or the given one is absent or damaged.
        """
        steps = self.steps()
        if step is not None:
            if step not in steps:
                raise CheckpointError(
                    f"there is no checkpoint of step {step} in {self.directory}; "
                    f"there are: {', '.join(map(str, steps)) or 'none'}."
                )
            if damage := self._damage(step):
                raise CheckpointError(f"the checkpoint {self.folder(step)} is damaged: {damage}.")
            return step
        for candidate in reversed(steps):
            damage = self._damage(candidate)
            if damage is None:
                return candidate
            self._set_aside(candidate, damage)
        aside = sorted(p.name for p in self.directory.glob("damaged-*"))
        if self._read_only:
            aside += map(str, steps)
        if not aside:
            return None
        raise CheckpointError(
            f"no checkpoint in {self.directory} is whole; the damaged ones are "
            f"{', '.join(aside)}. To start over, delete them or choose another run directory."
        )

    def set_aside_damaged(self) -> None:
        """Renames every damaged step."""
        for step in self.steps():
            if damage := self._damage(step):
                self._set_aside(step, damage)

    def _damage(self, step: int) -> str | None:
        """What is wrong with the files of a step, or None."""
        if step in self._whole:
            return None
        try:
            found = filelist.damage(self.folder(step))
        except (PermissionError, StorageError) as error:
            raise CheckpointError(f"a checkpoint cannot be read: {error}") from error
        if found is None:
            self._whole.add(step)
        return found

    def _set_aside(self, step: int, damage: str) -> None:
        folder = self.folder(step)
        if self._read_only:
            self._report(f"The checkpoint {folder} is damaged ({damage}) and is passed over.")
            return
        aside = self.directory / storage.first_free(
            f"damaged-{step}", "", lambda name: (self.directory / name).exists()
        )
        _move(folder, aside)
        self._report(f"The checkpoint {folder} is damaged ({damage}) and was set aside as {aside}.")


def _complete(folder: AnyPath) -> bool:
    """Whether a folder has all its files, be they damaged or not."""
    if isinstance(folder, RemotePath):  # a copy from a disk, where nothing is marked, has a list
        return _marked(folder) or filelist.all_there(folder)
    return folder.is_dir()


def _marked(folder: AnyPath) -> bool:
    return (folder / COMMITTED).exists()


def _mark(folder: RemotePath) -> None:
    """Marks a copy with its items; else orbax takes it for a save cut short, and deletes it."""
    for place in [*(p for p in folder.iterdir() if p.is_dir()), folder]:
        (place / COMMITTED).write_text("Copied here with all its files.\n")


def _move(folder: AnyPath, target: AnyPath) -> None:
    """Renames a folder to where there is none that is complete."""
    if isinstance(target, RemotePath):
        storage.remove_folder(target)  # what a move that was cut short has left
    storage.move_folder(folder, target, COMMITTED)

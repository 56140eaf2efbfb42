"""The steps that a directory of checkpoints holds: which there are, and which are whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from branchnets.engine import filelist
from branchnets.errors import CheckpointError


class Stored:
    """The complete steps of a directory; damaged ones are set aside, or passed over.

    Args:
      directory: where the steps are; it need not exist.
      read_only: never rename anything.
      report: prints a message for the user.
    """

    def __init__(self, directory: Path, read_only: bool, report: Callable[[str], None]):
        self.directory = directory
        self._read_only, self._report = read_only, report
        self._whole: set[int] = set()  # steps whose files were checked, or written, here

    def steps(self) -> list[int]:
        """The complete steps in ascending order, whole or damaged."""
        if not self.directory.is_dir():
            return []
        names = (p.name for p in self.directory.iterdir() if p.is_dir())
        return sorted(int(name) for name in names if name.isdecimal())

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
                raise CheckpointError(
                    f"the checkpoint {self.directory / str(step)} is damaged: {damage}."
                )
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
            found = filelist.damage(self.directory / str(step))
        except PermissionError as error:
            raise CheckpointError(f"a checkpoint cannot be read: {error}") from error
        if found is None:
            self._whole.add(step)
        return found

    def _set_aside(self, step: int, damage: str) -> None:
        folder = self.directory / str(step)
        if self._read_only:
            self._report(f"The checkpoint {folder} is damaged ({damage}) and is passed over.")
            return
        aside, number = self.directory / f"damaged-{step}", 1
        while aside.exists():
            number += 1
            aside = self.directory / f"damaged-{step}-{number}"
        folder.rename(aside)
        self._report(f"The checkpoint {folder} is damaged ({damage}) and was set aside as {aside}.")

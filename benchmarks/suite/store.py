"""The suite's results on disk: one JSON file a part, written anew after every process."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Record:
    """What came of one process.

    Attributes:
      part, name: of the job.
      run: of the suite that it is of: "commit", "dirty", "date", "command", "machine".
      command: of this process.
      load: average number of processes that wanted a core in the minute before.
      seconds: that it took.
      reason: why there is no result; None where there is one.
      document: what it printed.
    """

    part: str
    name: str
    run: dict[str, Any]
    command: str
    load: float
    seconds: float
    reason: str | None
    document: dict[str, Any]


class Store:
    """A folder of PART.json: name -> record."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, part: str) -> dict[str, Record]:
        """The records of a part, in the order that they were first made in."""
        file = self.folder / f"{part}.json"
        found = json.loads(file.read_text()) if file.exists() else {}
        return {name: Record(part, name, **fields) for name, fields in found.items()}

    def write(self, record: Record) -> None:
        """Puts a record in the place of the one of its name."""
        records = {**self.read(record.part), record.name: record}
        plain = {
            name: {k: v for k, v in dataclasses.asdict(each).items() if k not in ("part", "name")}
            for name, each in records.items()
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"{record.part}.json"
        new = file.with_suffix(".new")
        new.write_text(json.dumps(plain, indent=1) + "\n")
        os.replace(new, file)

    def all(self, parts: tuple[str, ...]) -> Iterator[Record]:
        """The records of some parts."""
        for part in parts:
            yield from self.read(part).values()

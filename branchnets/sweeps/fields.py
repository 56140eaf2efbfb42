"""What can be swept: fields by their names, and the values that a command line gives them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from branchnets.engine import config as configs
from branchnets.errors import ConfigError, nearest
from branchnets.families.base import Family
from branchnets.sweeps import names


@dataclasses.dataclass(frozen=True)
class Field:
    """Something that can be swept.

    Attributes:
      label: its short name: the paper's, or the last part of the path.
      path: of the config field; None for an argument of the config file.
    """

    label: str
    path: str | None


@dataclasses.dataclass(frozen=True)
class Setting:
    """A swept field with its values, as text of the command line."""

    field: Field
    values: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Source:
    """A config file with what holds for all cells.

    Attributes:
      file: path, perhaps with arguments after a colon.
      overrides: words ``--config.field=value``.
    """

    file: str
    overrides: tuple[str, ...] = ()

    def load(self, setting: Mapping[Field, str] | None = None) -> tuple[tuple[str, ...], Any]:
        """(words for ``branchnets.main``, config) with some fields set."""
        given, words = [], list(self.overrides)
        for field, text in (setting or {}).items():
            if field.path is None:
                given.append(f"{field.label}={text}")
            else:
                words.append(f"--config.{field.path}={text}")
        path, colon, arguments = self.file.partition(":")
        file = ":".join(filter(None, (path, ",".join(filter(None, (arguments, *given))))))
        return (f"--config={file}", *words), configs.load(file, words)


@dataclasses.dataclass(frozen=True)
class Fields:
    """What can be swept: the config's fields, the family's names for them, the file's arguments.

    Attributes:
      paths: dotted paths.
      aliases: the family's.
      arguments: of the config file.
    """

    paths: tuple[str, ...]
    aliases: Mapping[str, str]
    arguments: tuple[str, ...] = ()

    @classmethod
    def of(cls, source: Source, config: ConfigDict, family: type[Family]) -> Fields:
        """Those of a config file."""
        known = tuple(configs.flatten(config))
        return cls(known, family.aliases, configs.arguments(source.file))

    def find(self, name: str) -> Field:
        """The field that a name stands for: an alias, a path, an argument, a unique last part.

        Raises:
          ConfigError: none or several.
        """
        if name in self.aliases:
            return self._field(self.aliases[name])
        if name in self.paths:
            return self._field(name)
        if name in self.arguments:
            return Field(name, None)
        ending = [path for path in self.paths if path.rpartition(".")[2] == name]
        if len(ending) == 1:
            return self._field(ending[0])
        if ending:
            raise ConfigError(f"--set={name}: is it {' or '.join(sorted(ending))}?")
        known = {*self.aliases, *self.paths, *self.arguments}
        raise ConfigError(f"--set: unknown field {name!r}. {nearest(name, known)}")

    def _field(self, path: str) -> Field:
        if path not in self.paths:
            raise ConfigError(f"this config has no field {path!r}.")
        for alias, target in self.aliases.items():
            if target == path:
                return Field(alias, path)
        last = path.rpartition(".")[2]
        taken = {*self.aliases, *self.arguments} - {path}
        unique = sum(other.rpartition(".")[2] == last for other in self.paths) == 1
        return Field(last if unique and last not in taken else path, path)


def parse(texts: Iterable[str], fields: Fields) -> tuple[Setting, ...]:
    """Reads ``NAME:VALUE,VALUE,...``; values are split at top-level commas.

    Raises:
      ConfigError: a text of another form, an unknown field, or one that is given twice.
    """
    settings: dict[Field, Setting] = {}
    for text in texts:
        name, colon, values = text.partition(":")
        if not colon or not values.strip():
            raise ConfigError(f"--set={text}: give values after a colon: --set=NAME:VALUE,VALUE")
        field = fields.find(name.strip())
        if field in settings:
            raise ConfigError(f"--set: {field.label} is given twice; name all its values once.")
        settings[field] = Setting(field, tuple(names.split(values)))
    return tuple(settings.values())

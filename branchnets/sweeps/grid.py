"""The cells of a sweep: every one a config, a directory and the values that are its own."""

from __future__ import annotations

import ast
import dataclasses
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from branchnets import data, families
from branchnets.engine import config as configs
from branchnets.errors import ConfigError
from branchnets.families.base import Family
from branchnets.sweeps import names
from branchnets.sweeps.fields import Field, Fields, Setting, Source, parse

SEED = "seed"


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
      name: of its directory.
      config: overrides included.
      arguments: the words for ``branchnets.main``: --config and the overrides.
      values: label -> typed value of every swept field, the seed included where it is swept.
    """

    name: str
    config: ConfigDict
    arguments: tuple[str, ...]
    values: Mapping[str, Any]

    @property
    def seed(self) -> int:
        """Of its config."""
        return self.config.seed

    @property
    def point(self) -> dict[str, Any]:
        """Its values without the seed: cells of one point are averaged."""
        return {name: value for name, value in self.values.items() if name != SEED}


def family_of(config: ConfigDict) -> Family:
    """The family of a config; nothing is read and no device is touched.

    Raises:
      UserError: a config that cannot run.
    """
    # The number of devices is left to the run: a sweep that asked would hold an accelerator.
    configs.validate(config, 1)
    return families.create(config, data.spec(None, config.data))


@dataclasses.dataclass(frozen=True)
class Grid:
    """A sweep.

    Attributes:
      cells: in the order in which they are run; no two have one config.
      base: the config's own point.
      swept: labels of the swept fields, the seed left out.
      family: of the config.
    """

    cells: tuple[Cell, ...]
    base: ConfigDict
    swept: tuple[str, ...]
    family: type[Family]

    @property
    def has_merits(self) -> bool:
        """Whether the family computes figures of a finished run."""
        return self.family.merits is not Family.merits

    def shard(self, index: int, count: int) -> tuple[Cell, ...]:
        """Every ``count``-th cell from ``index`` on."""
        return self.cells[index::count]


def make(source: Source, texts: Sequence[str] = (), seeds: int | None = None) -> Grid:
    """The grid of a command line, all of it checked.

    Args:
      source: the config.
      texts: of ``--set``: their product.  Without any, the family's ``sweeps``: one field at a
        time around the config's own point.
      seeds: 0 .. seeds-1 for every point; None leaves the seed to the config or to ``texts``.

    Raises:
      UserError: a name, a value or a config that cannot be used.
    """
    _, base = source.load()
    # Its class alone: the config's own point need not be able to run where every cell can.
    family = families.family_class(base.family)
    fields = Fields.of(source, base, family)
    settings = parse(texts, fields)
    by_seed = [s for s in settings if s.field.path == SEED]
    settings = tuple(s for s in settings if s.field.path != SEED)
    if seeds is not None:
        if by_seed:
            raise ConfigError("give --seeds or --set=seed:..., one of the two.")
        if seeds < 1:
            raise ConfigError(f"--seeds is {seeds}; it must be at least 1.")
        by_seed = [Setting(Field(SEED, SEED), tuple(map(str, range(seeds))))]
    if texts:
        points = _product(settings)
    else:
        settings = _defaults(family, fields)
        points = _one_by_one(settings)
    # An override of a default sweep's field moves the point that the sweep lies around.
    _refuse_fixed(source, [*(settings if texts else ()), *by_seed])
    own = _own_values(settings, base)
    # Seed by seed, so that a whole grid is there early.
    cells = [
        _cell(source, point, seed, own, one_by_one=not texts)
        for seed in _product(by_seed)
        for point in points
    ]
    return Grid(_distinct(cells), base, tuple(s.field.label for s in settings), family)


def _product(settings: Sequence[Setting]) -> list[dict[Field, str]]:
    fields = [s.field for s in settings]
    combinations = itertools.product(*(s.values for s in settings))
    return [dict(zip(fields, values, strict=True)) for values in combinations]


def _one_by_one(settings: Sequence[Setting]) -> list[dict[Field, str]]:
    return [{}, *({s.field: text} for s in settings for text in s.values)]


def _defaults(family: type[Family], fields: Fields) -> tuple[Setting, ...]:
    if not family.sweeps:
        raise ConfigError(
            f"family {family.name!r} has no sweep of its own; say what to vary: --set=NAME:VALUES"
        )
    return tuple(
        Setting(fields.find(name), tuple(map(names.word, values)))
        for name, values in family.sweeps.items()
    )


def _refuse_fixed(source: Source, settings: Sequence[Setting]) -> None:
    for setting in settings:
        for word in source.overrides:
            path = word.lstrip("-").partition("=")[0].removeprefix("no").removeprefix("config.")
            if path == setting.field.path:
                raise ConfigError(f"{setting.field.label} is swept and is also fixed by {word}.")


def _own_values(settings: Sequence[Setting], base: ConfigDict) -> dict[str, Any]:
    flat = configs.flatten(base)
    return {s.field.label: flat[s.field.path] for s in settings if s.field.path is not None}


def _cell(
    source: Source,
    point: Mapping[Field, str],
    seed: Mapping[Field, str],
    own: Mapping[str, Any],
    one_by_one: bool,
) -> Cell:
    chosen = {**point, **seed}
    try:
        arguments, config = source.load(chosen)
        family_of(config)
    except ConfigError as error:
        where = ", ".join(f"{field.label}={text}" for field, text in chosen.items())
        raise ConfigError(f"{where}: {error}" if where else str(error)) from error
    flat = configs.flatten(config)
    values: dict[str, Any] = dict(own) if one_by_one else {}
    for field, text in chosen.items():
        values[field.label] = _literal(text) if field.path is None else flat[field.path]
    named = {
        label: value
        for label, value in values.items()
        if not one_by_one or label == SEED or value != own[label]
    }
    name = names.directory(named)
    if one_by_one and named.keys() <= {SEED}:
        name = ",".join(filter(None, ("base", name if named else "")))
    return Cell(name, config, arguments, values)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _distinct(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    """Cells of one config are one cell."""
    found: dict[str, Cell] = {}
    for cell in cells:
        found.setdefault(json.dumps(configs.plain(cell.config), sort_keys=True), cell)
    return tuple(found.values())

"""Models as benchmarks name them: NAME[:field=value,...], with the fields of a config's model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from branchnets import data, families, registry
from branchnets.engine import config as configs
from branchnets.errors import ConfigError
from branchnets.families.base import Family


@dataclasses.dataclass(frozen=True)
class Variant:
    """A registered model with fields of its own.

    Attributes:
      name: registered.
      fields: field of the config's model -> value.
    """

    name: str
    fields: Mapping[str, Any]

    @property
    def entry(self) -> registry.Entry:
        """What is registered."""
        return registry.entry(self.name)

    def config(self) -> ConfigDict:
        """The family's default config with this model."""
        config = configs.base(self.entry.family)
        config.model.name = self.name
        for field, value in self.fields.items():
            try:
                config.model[field] = value
            except (TypeError, ValueError) as error:
                raise ConfigError(f"{self.name}: {field}={value!r} is of another type") from error
        return config

    def spec(
        self, image_shape: tuple[int, int, int] | None = None, classes: int | None = None
    ) -> data.DataSpec:
        """Data of this shape and number of classes, or of the model's usual ones."""
        number = self.entry.num_classes if classes is None else classes
        names = tuple(map(str, range(number)))
        return data.DataSpec(image_shape or self.entry.image_shape, number, names)

    def family(self) -> Family:
        """The family, for the model's usual data."""
        return families.create(self.config(), self.spec())


def parse(word: str) -> Variant:
    """The variant that a word of the command line names.

    Raises:
      ValueError: an unknown model or field, or a value that cannot be read.

    >>> parse("resnext_digits:bn_momentum=0.5").fields
    {'bn_momentum': 0.5}
    """
    name, _, text = word.partition(":")
    entry = registry.entry(name)
    own = {field.name for field in dataclasses.fields(registry.create_model(name))}
    known = {*configs.base(entry.family).model, *own} - {"name", "parent"}
    given = configs.parse_arg(text, **dict.fromkeys(known))
    return Variant(name, {field: given[field] for field in _named(text)})


def _named(text: str) -> list[str]:
    return [item.partition("=")[0].strip() for item in text.split(",") if item.strip()]

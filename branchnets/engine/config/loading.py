"""Config files loaded by path, and the command line that overrides their fields."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import itertools
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from branchnets.engine.config.fields import UnknownArgument, base
from branchnets.errors import ConfigError, nearest

_module_numbers = itertools.count()


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return {dotted path: value} of every field; an empty section counts as a field."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping | ConfigDict) and len(value):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def load(path: str | Path, overrides: Mapping[str, Any] | Sequence[str] = ()) -> ConfigDict:
    """Run a config file's `get_config` and apply overrides.

    Args:
      path: The file, optionally with arguments: "configs/coded_digits.py:smoke,seed=3". It is
        loaded by its path, so the working directory and `sys.path` do not matter.
      overrides: As of `apply_overrides`.

    Returns:
      A locked ConfigDict.

    Raises:
      ConfigError: No such file, a file without `get_config`, or a bad argument or override.
    """
    name, _, arg = str(path).partition(":")
    file = Path(name).expanduser()
    get_config = _get_config(file)
    if arg and not inspect.signature(get_config).parameters:
        raise ConfigError(f"{file} takes no arguments, but was given {arg!r}.")
    config = get_config(arg) if arg else get_config()
    if not isinstance(config, ConfigDict):
        raise ConfigError(f"get_config() of {file} returned {type(config).__name__}, no config.")
    _refuse_unusable(file, config)
    return apply_overrides(config, overrides)


def arguments(path: str | Path) -> tuple[str, ...]:
    """Return the names of the arguments that a config file takes, as far as it uses `parse_arg`.

    Args:
      path: The file; arguments after a colon are left out of account.

    Raises:
      ConfigError: No such file, or a file without `get_config`.
    """
    get_config = _get_config(Path(str(path).partition(":")[0]).expanduser())
    if not inspect.signature(get_config).parameters:
        return ()
    try:
        get_config("?")  # no argument can be called so, and the refusal names those that are known
    except UnknownArgument as error:
        return error.known
    except Exception:  # a file that reads its argument in a way of its own
        return ()
    return ()


def _get_config(file: Path) -> Callable[..., ConfigDict]:
    get_config = getattr(_import_file(file), "get_config", None)
    if get_config is None:
        raise ConfigError(f"{file} is no config: it has no function get_config().")
    return get_config


def _import_file(file: Path) -> Any:
    if not file.is_file():
        folder = file.parent
        siblings = [f.name for f in folder.glob("*.py")] if folder.is_dir() else []
        close = difflib.get_close_matches(file.name, siblings, n=1)
        hint = f" Did you mean {folder / close[0]}?" if close else ""
        raise ConfigError(f"there is no config file {file} (seen from {Path.cwd()}).{hint}")
    # A name of its own for every load: two files may share one, and a file may be loaded twice.
    spec = importlib.util.spec_from_file_location(
        f"_branchnets_config_{next(_module_numbers)}_{file.stem}", file.resolve()
    )
    if spec is None or spec.loader is None:
        raise ConfigError(f"{file} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _refuse_unusable(file: Path, config: ConfigDict, prefix: str = "") -> None:
    for name in config:
        if hasattr(ConfigDict, name):  # config.update would be the method, not the field
            raise ConfigError(f"{file}: a field cannot be called {prefix + name!r}; rename it.")
        if isinstance(config[name], ConfigDict):
            _refuse_unusable(file, config[name], f"{prefix}{name}.")
        elif config.get_type(name) is type(None):  # ml_collections cannot override a plain None
            raise ConfigError(
                f"{file}: the empty field {prefix + name!r} has no type and could never be "
                "overridden; write ml_collections.config_dict.placeholder(int) (or str, float, "
                "tuple) instead of None."
            )


def apply_overrides(
    config: ConfigDict, overrides: Mapping[str, Any] | Sequence[str] = ()
) -> ConfigDict:
    """Set fields of a config in place, lock it and return it.

    Args:
      config: The config to change.
      overrides: {"optimizer.momentum": 0.8, ...}, where a string stands for any type as it would
        on the command line, or command-line words such as "--config.optimizer.momentum=0.8".
        "none" (or None) empties an optional field.

    Raises:
      ConfigError: An unknown field (the nearest known one is named), or a value of another type.
    """
    words, values = [], {}
    if isinstance(overrides, Mapping):
        for path, value in overrides.items():
            if isinstance(value, str):
                words.append(f"--config.{path}={value}")
            else:
                values[path] = value
    else:
        words = list(overrides)
    known = flatten(config)
    # A field that a config or an earlier override has filled is still optional.
    fields = (flatten(base(config.family)), known)
    optional = {path for flat in fields for path, value in flat.items() if value is None}
    typed = []
    for word in words:
        path, has_value, text = re.sub(r"^--?(no)?config\.", "", word).partition("=")
        _check_field(path, known)
        if has_value and path in optional and text in ("none", "None"):
            values[path] = None
        else:
            values.pop(path, None)  # the last word about a field counts
            typed.append(word)
    config.lock()
    _apply_words(config, typed)
    for path, value in values.items():
        _check_field(path, known)
        _set(config, path, value, optional)
    return config


def _check_field(path: str, known: Mapping[str, Any]) -> None:
    if path in known:
        return
    inside = sorted(field for field in known if field.startswith(path + "."))
    if path and inside:
        raise ConfigError(
            f"config field {path!r} is a section; set its fields one by one: {', '.join(inside)}."
        )
    raise ConfigError(f"unknown config field {path!r}. {nearest(path, known)}")


def _apply_words(config: ConfigDict, words: Sequence[str]) -> None:
    argv = ["", *words]
    # Flags of its own: nothing is left behind in absl's global ones, so configs can be loaded
    # any number of times in one process.
    own = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=own, sys_argv=argv)
        own(argv)
    except (flags.Error, TypeError, ValueError) as error:
        text = re.sub(r"^flag --config\.", "config field ", str(error))
        missing = re.match(r"Missing value for flag --config\.(\S+)", text)
        raise ConfigError(
            f"config field {missing[1]!r} needs a value." if missing else text
        ) from None


def _set(config: ConfigDict, path: str, value: Any, optional: set[str]) -> None:
    section, _, name = path.rpartition(".")
    holder = config
    for part in filter(None, section.split(".")):
        holder = holder[part]
    if value is None and path not in optional:
        raise ConfigError(f"config field {path!r} cannot be empty.")
    try:
        holder[name] = value
    except TypeError as error:
        kind = holder.get_type(name).__name__
        raise ConfigError(f"config field {path!r} is of type {kind}, not {value!r}.") from error


@dataclass(frozen=True)
class CommandLine:
    """The part of a command line that is about the config.

    Attributes:
      config: The value of `--config`, path and arguments, or None.
      overrides: The words `--config.field=value`, in their order, for `load`.
    """

    config: str | None
    overrides: tuple[str, ...]

    def load(self) -> ConfigDict:
        """Load the config with its overrides."""
        if self.config is None:
            raise ConfigError("no config given: --config=FILE.py[:ARGUMENTS]")
        return load(self.config, self.overrides)


def parse_command_line(
    argv: Sequence[str], flag_values: flags.FlagValues, usage: str = ""
) -> CommandLine:
    """Separate the config's words from the other flags, and parse these.

    Args:
      argv: The whole command line, program name first, as `sys.argv`.
      flag_values: The program's other flags, parsed by this call; give a `flags.FlagValues()` of
        your own, or absl's `flags.FLAGS`.
      usage: What `--help` prints above the flags, before it exits with status 0.

    Raises:
      ConfigError: An unknown flag, a word that is no flag, or `--config` given twice.
    """
    config, overrides, rest = None, [], []
    words = iter(argv[1:])
    for word in words:
        if re.match(r"--?config(=|$)", word):
            value = word.partition("=")[2] if "=" in word else next(words, "")
            if not value or value.startswith("--"):
                raise ConfigError("--config needs a value: --config=FILE.py[:ARGUMENTS]")
            if config is not None:
                raise ConfigError(f"--config is given twice: {config} and {value}.")
            config = value
        elif re.match(r"--?(no)?config\.", word):
            overrides.append(word)
        elif word in ("--help", "-h", "-help"):
            print(f"{usage}\n{flag_values.get_help()}")
            sys.exit(0)
        else:
            rest.append(word)
    try:
        stray = flag_values([argv[0], *rest])[1:]
    except flags.UnrecognizedFlagError as error:
        known = {*flag_values, "config"}  # which the program may have defined
        raise ConfigError(
            f"unknown flag --{error.flagname}. {nearest(error.flagname, known)}"
        ) from None
    except flags.Error as error:
        raise ConfigError(str(error)) from None
    if stray:
        raise ConfigError(f"{stray[0]!r} is no flag; a field is set as one word: --config.seed=1.")
    return CommandLine(config, tuple(overrides))

"""What the command lines share: flags from options, overrides, progress bars, error messages."""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO, TypeVar

from branchnets.errors import ConfigError, UserError, nearest
from branchnets.families.study import Option

T = TypeVar("T")

#: Seconds between two lines of a progress bar where there is no terminal, and before its first.
LINE_SECONDS = 10.0


class Parser(argparse.ArgumentParser):
    """An argument parser that says ``error: ...`` and names the nearest flag to a wrong one."""

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (--help lists the flags)\n")

    def parse_all(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parses every word; exits with status 2 on one that is unknown.

        Words without a dash may stand before, between and after the flags.
        """
        namespace, rest = self.parse_known_intermixed_args(argv)
        if rest:
            known = [name for action in self._actions for name in action.option_strings]
            word = rest[0].partition("=")[0]
            hint = nearest(word, known) if word.startswith("-") else ""
            self.error(f"unknown argument {rest[0]!r}. {hint}".rstrip())
        return namespace


def split_overrides(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """(words that override a config's fields, the other words), each in their order.

    >>> split_overrides(["--workdir=a", "--config.seed=1"])
    (['--config.seed=1'], ['--workdir=a'])
    """
    overrides: list[str] = []
    rest: list[str] = []
    for word in argv:
        (overrides if re.match(r"--?(no)?config\.", word) else rest).append(word)
    return overrides, rest


def merge_options(options: Iterable[Option]) -> tuple[Option, ...]:
    """Each option once, in order: analyses may share one.

    Raises:
      ValueError: two different options have one name; a mistake in a family.
    """
    merged: dict[str, Option] = {}
    for option in options:
        if merged.setdefault(option.name, option) != option:
            raise ValueError(f"two different options are called {option.name!r}")
    return tuple(merged.values())


def add_options(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup, options: Iterable[Option]
) -> None:
    """Adds a flag for each option; :func:`option_values` reads them back."""
    for option in merge_options(options):
        flag = "--" + (option.flag or option.name)
        text = option.help.replace("%", "%%")
        common: dict[str, Any] = {
            "dest": f"option:{option.name}",
            "required": option.required,
            "help": text if option.default in (None, (), False) else f"{text} ({_shown(option)})",
            # Told apart from a value that equals the default.
            "default": argparse.SUPPRESS,
        }
        if isinstance(option.default, bool) and not option.many:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, **common)
            continue
        kind = _kind(option)
        metavar = {int: "N", float: "X"}.get(kind, option.name.upper())
        action = "append" if option.many else "store"
        parser.add_argument(flag, type=kind, metavar=metavar, action=action, **common)


def option_values(namespace: argparse.Namespace, options: Iterable[Option]) -> dict[str, Any]:
    """Name -> value of every option: as given, else its default; of ``many``, a tuple."""
    options = merge_options(options)
    given = {
        option.name: getattr(namespace, f"option:{option.name}")
        for option in options
        if hasattr(namespace, f"option:{option.name}")
    }
    return complete_options(given, options)


def complete_options(given: Mapping[str, Any], options: Iterable[Option]) -> dict[str, Any]:
    """What a caller gave, with the defaults of the options that it left out.

    Args:
      given: name -> value; of an option that may be repeated, one value or several.
      options: those that are understood.

    Raises:
      ConfigError: a name that is none of them, or one that must be given and is not.
      UserError: a value that the option's ``check`` refuses.
    """
    known = {option.name: option for option in merge_options(options)}
    for name in given:
        if name not in known:
            raise ConfigError(f"unknown option {name!r}. {nearest(name, known)}")
    values = {}
    for name, option in known.items():
        if option.required and given.get(name) in (None, ()):
            raise ConfigError(f"{name!r} must be given: {option.help}")
        value = given.get(name, option.default)
        if option.many:
            several = isinstance(value, list | tuple)
            value = tuple(value) if several else () if value is None else (value,)
        if name in given and option.check is not None:
            option.check(value)
        values[name] = value
    return values


def _kind(option: Option) -> type:
    value = option.default
    if isinstance(value, list | tuple):
        value = value[0] if value else None
    return str if value is None else type(value)


def _shown(option: Option) -> str:
    value = option.default
    text = " ".join(map(str, value)) if isinstance(value, list | tuple) else value
    return f"default: {text}"


def family_of(workdir: str | Path, overrides: Sequence[str] = ()) -> tuple[Any, Any]:
    """(config, family) of a run, overrides included; reads neither weights nor images.

    Raises:
      UserError: no run there, or an override that cannot be applied.
    """
    # Only here: most of this module needs no engine.
    from branchnets import data, families
    from branchnets.engine import config as configs
    from branchnets.engine.records.rundir import RunDir

    config = configs.apply_overrides(RunDir(workdir, write=False).config(), overrides)
    return config, families.create(config, data.spec(None, config.data))


@dataclasses.dataclass(frozen=True)
class RunCommand:
    """A command line about one run, understood.

    Attributes:
      family: of the run.
      flags: the tool's own.
      options: name -> value of the options that the run's family brings.
      config: of the run, with the overrides; None where there are none.
    """

    family: Any
    flags: argparse.Namespace
    options: dict[str, Any]
    config: Any

    def load(self) -> Any:
        """The run, at the checkpoint asked for.

        Raises:
          UserError: it cannot be loaded; see :func:`branchnets.load_run`.
        """
        from branchnets.engine.runs import load_run

        return load_run(self.flags.workdir, self.flags.checkpoint, config=self.config)


def run_parser(**settings: Any) -> Parser:
    """A parser with ``--help``, ``--workdir`` and ``--checkpoint``, for :func:`parse_for_run`.

    Takes what a Parser takes.
    """
    parser = Parser(add_help=False, **settings)
    parser.add_argument("-h", "--help", action="help", help="show this and stop")
    parser.add_argument("--workdir", required=True, metavar="RUN", help="run directory")
    parser.add_argument(
        "--checkpoint", default="latest", metavar="STEP", help="latest (default), best or a step"
    )
    return parser


def parse_for_run(
    parser: Parser,
    options_of: Callable[[Any], Iterable[Option]],
    argv: Sequence[str] | None = None,
) -> RunCommand:
    """Parses in two steps: ``--workdir=RUN`` tells the family, which brings flags of its own.

    ``--help`` lists these too where a run is named.

    Args:
      parser: of :func:`run_parser`, with the tool's own flags.
      options_of: the options that a family brings to this tool.
      argv: words after the program's name; ``sys.argv``'s by default.

    Raises:
      UserError: no run there, or an override that cannot be applied.
    """
    overrides, words = split_overrides(sys.argv[1:] if argv is None else argv)
    first = Parser(add_help=False)
    first.add_argument("--workdir")
    workdir = first.parse_known_args(words)[0].workdir
    if workdir is None:
        parser.parse_all(words)  # shows the help, or says that --workdir is missing
    config, family = family_of(workdir, overrides)
    options = merge_options(options_of(family))
    if options:
        add_options(parser.add_argument_group(f"flags of family {family.name!r}"), options)
    namespace = parser.parse_all(words)
    return RunCommand(
        family, namespace, option_values(namespace, options), config if overrides else None
    )


class _Lines:
    """A stream in which every state of a progress bar is a line of its own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = getattr(stream, "encoding", "utf-8")

    def write(self, text: str) -> None:
        if text := text.strip("\r\n "):
            self._stream.write(text + "\n")

    def flush(self) -> None:
        self._stream.flush()


def track(items: Iterable[T], title: str = "", total: int | None = None) -> Iterator[T]:
    """Yields the items and shows on standard error how far they are and how long it will take.

    On a terminal a bar that goes away when it is done; elsewhere, a line every ten seconds of
    what takes longer than that.

    Args:
      items: of a loop.
      title: what it does.
      total: number of items, where ``len(items)`` does not say.
    """
    from tqdm import tqdm

    stream = sys.stderr
    if stream.isatty():
        yield from tqdm(items, title, total, leave=False, file=stream, dynamic_ncols=True)
        return
    every = LINE_SECONDS
    yield from tqdm(
        items, title, total, file=_Lines(stream), mininterval=every, delay=every, ncols=80
    )


def say(text: str) -> None:
    """A line on standard error, above the progress bars."""
    from tqdm import tqdm

    tqdm.write(text, file=sys.stderr)


def guarded(work: Callable[[], None]) -> int:
    """Does the work of a command line; returns its exit status, with a message on bad input."""
    try:
        work()
    except KeyboardInterrupt:
        print("stopped.", file=sys.stderr)
        return 130
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0

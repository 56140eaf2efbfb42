"""Studies a finished run and writes a report of what it finds.

python -m branchnets.tools.analyze --workdir=runs/coded_digits
python -m branchnets.tools.analyze --workdir=RUN --ood=cifar100 --ood_dir=DATA --out=report
python -m branchnets.tools.analyze --workdir=RUN --beside=runs/sweep --beside=runs/baseline
python -m branchnets.tools.analyze --workdir=RUN --help

Every run is studied for what it takes for what; the rest depends on its family.  The last line
lists the flags that the family brings.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from branchnets import data
from branchnets.data.outside import load_outside
from branchnets.engine.records import environment
from branchnets.engine.records.logging import format_table
from branchnets.engine.runs import Run, load_run
from branchnets.errors import UserError, unknown
from branchnets.families.base import Family
from branchnets.families.study import Analysis, FinishedRun, Option, Subject, silent
from branchnets.report.content import Section
from branchnets.report.write import check_folder, plain, write_report
from branchnets.storage import AnyPath, RemotePath, as_path
from branchnets.sweeps import results
from branchnets.sweeps.beside import gather
from branchnets.sweeps.results import flatten
from branchnets.tools import classes, common, overview
from branchnets.version import __version__


@dataclasses.dataclass(frozen=True)
class Report:
    """A report that was written.

    Attributes:
      index: its page.
      sections: short name of an analysis -> its section; the first is "run".
      notices: what the reader should know, such as images that were resized.
    """

    index: AnyPath
    sections: Mapping[str, Section]
    notices: tuple[str, ...]


def analyze(
    run: Run | str | AnyPath,
    out: str | AnyPath | None = None,
    only: str | Iterable[str] | None = None,
    ood: str | Path | None = None,
    *,
    ood_dir: str | Path | None = None,
    split: str = "test",
    beside: str | AnyPath | Iterable[str | AnyPath] = (),
    progress: bool = True,
    **options: Any,
) -> Report:
    """Studies a run on real data, as every run and as its family is studied, and writes a report.

    Args:
      run: from :func:`branchnets.load_run`, or its directory.
      out: folder of the report; ``report`` in the run directory by default.
      only: short name of the analysis to run, or of several; all by default.
      ood: a data set or a folder of images that the network was not trained on.
      ood_dir: where that data set is; the run's own data directory or tfds's by default.
      split: what stands for the test split.
      beside: finished runs to compare with, or folders that hold some; several may be given.
      progress: show on standard error what is being done.
      **options: of the analyses; ``--help`` of the command line lists them.

    Raises:
      UserError: a bad name or option, data that cannot be read, or a folder that cannot be
        written. Nothing is written then.
    """
    if isinstance(run, str | Path | RemotePath):
        run = load_run(run)
    place = check_folder(run.path / "report" if out is None else out)
    chosen = _choose(run.family, only)
    given = common.complete_options(options, _options(run.family))
    others = _others(run, [beside] if isinstance(beside, str | Path | RemotePath) else beside)
    say: Callable[[str], None] = common.say if progress else lambda text: None
    track: Callable[..., Iterable[Any]] = common.track if progress else silent
    outside, notices = _outside(run, ood, ood_dir)
    for notice in notices:
        say(notice)
    subject = _subject(run, split, outside, ood, track, given)
    subject = dataclasses.replace(subject, others=others)

    say(f"[1/{len(chosen) + 1}] Run")
    metrics = run.evaluate(split, track)
    subject = dataclasses.replace(subject, metrics=metrics)
    sections: dict[str, Section] = {"run": overview.section(run, metrics, split)}
    for number, (name, analysis) in enumerate(chosen.items(), start=2):
        say(f"[{number}/{len(chosen) + 1}] {analysis.title}")
        found = analysis.run(subject)
        if found is None:
            notices.append(f"{analysis.title}: this network and data have nothing to show.")
            say(f"  {notices[-1]}")
        else:
            sections[name] = found
    title = f"{run.config.model.name} on {run.dataset.name}"
    header = _header(run, subject, split, notices)
    index = write_report(place, title, list(sections.values()), header, _footer())
    return Report(index, sections, tuple(notices))


def _options(family: Family) -> tuple[Option, ...]:
    return common.merge_options(o for a in _analyses(family).values() for o in a.options)


def _analyses(family: Family) -> dict[str, Analysis]:
    """Those of every run, and the family's own."""
    return {"classes": Analysis("Classes", classes.section), **family.analyses()}


def _choose(family: Family, only: str | Iterable[str] | None) -> dict[str, Analysis]:
    """The analyses to run, in order."""
    known = _analyses(family)
    names = [only] if isinstance(only, str) else list(known if only is None else only)
    for name in names:
        if name not in known:
            raise unknown("analysis", name, known)
    return {name: analysis for name, analysis in known.items() if name in names}


def _outside(
    run: Run, ood: str | Path | None, ood_dir: str | Path | None
) -> tuple[data.Split | None, list[str]]:
    """Out-of-distribution images that fit the network, and what was done to them."""
    for flag, value in (("ood", ood), ("ood_dir", ood_dir)):
        if value is not None and not str(value).strip():
            raise UserError(f"--{flag} is empty; leave it out, or say which images.")
    if ood is None:
        if ood_dir is not None:
            raise UserError("ood_dir says where the data set of ood is; give ood too.")
        return None, []
    own = run.config.data
    if ood_dir is None and own.data_dir is not None:
        if (as_path(own.data_dir) / str(ood)).is_dir():
            ood_dir = own.data_dir
    where = None if ood_dir is None else str(ood_dir)
    shape, content = run.dataset.image_shape, run.content_shape
    return load_outside(ood, shape, where, content_shape=content, flag="--ood_dir")


def _subject(
    run: Run,
    split: str,
    outside: data.Split | None,
    ood: str | Path | None,
    track: Callable[..., Iterable[Any]],
    options: Mapping[str, Any],
) -> Subject:
    """What the analyses are given; its "test" examples are those of the split asked for."""
    run.setup.evaluation_input(split)  # raises now if there are none
    subject = run.subject(outside, "" if ood is None else str(ood), track)

    def examples(name: str) -> data.EvalBatches:
        return run.setup.evaluation_input(split if name == "test" else name)

    return dataclasses.replace(subject, examples=examples, options=options, studied=split)


def _others(run: Run, beside: Iterable[str | AnyPath]) -> tuple[FinishedRun, ...]:
    """The finished runs to compare with, this one first where it is finished."""
    own: list[str | AnyPath] = [run.path] if results.finished(run.path) else []
    return gather([*own, *beside])


def _header(run: Run, subject: Subject, split: str, notices: Sequence[str]) -> dict[str, str]:
    spec = run.dataset.spec
    sizes = ", ".join(f"{len(part):,} {name}" for name, part in run.dataset.splits.items())
    shape = "×".join(map(str, spec.image_shape))
    facts = {
        "model": f"{run.config.model.name} (family {run.family.name!r})",
        "data": f"{run.dataset.name}: {spec.num_classes:,} classes, images {shape}; {sizes}",
        "studied on": f"split {split!r}, {subject.examples('test').num_examples:,} images",
        "run": f"{run.path.name}, checkpoint at step {run.step:,}",
        "trained by commit": _commit(next(reversed(run.run_dir.sources()), {})),
        "studied by commit": _commit(environment.commit(Path(common.__file__))),
        "seed": f"{run.config.seed} of training and of everything drawn here",
        "date": time.strftime("%Y-%m-%d %H:%M %Z"),
    }
    if subject.outside is not None:
        number = subject.outside.num_examples
        facts["out of distribution"] = f"{subject.outside_name}, {number:,} images"
    if len(subject.others) > 1:
        facts["beside"] = f"{len(subject.others)} finished runs"
    if split != "test":
        facts["note"] = f"what is called test below is split {split!r}"
    if notices:
        facts["notices"] = " ".join(notices)
    return facts


def _commit(source: Mapping[str, Any]) -> str:
    commit = source.get("commit")
    if not commit:
        return "unknown"
    return f"{commit[:12]}, with changes" if source.get("dirty") else str(commit[:12])


def _footer() -> str:
    devices = jax.devices()
    return (
        f"Written by branchnets {__version__}, JAX {jax.__version__}, on {len(devices)} "
        f"{devices[0].device_kind} device{'s' if len(devices) > 1 else ''}."
    )


def summary(report: Report, most: int = 8) -> str:
    """What was found, for the terminal: the first figures of every section."""
    rows = []
    for section in report.sections.values():
        figures = flatten(plain(section.figures_of_merit))
        numbers = [(n, v) for n, v in figures.items() if isinstance(v, int | float)]
        rows += [(section.title, name, value) for name, value in numbers[:most]]
    return f"{format_table(rows, ('section', 'figure', 'value'))}\n\nreport: {report.index}"


def _parser() -> common.Parser:
    parser = common.run_parser(
        prog="python -m branchnets.tools.analyze",
        description="Studies a finished run and writes a report: index.html, figures, tables.",
        epilog="With --workdir=RUN, --help lists the flags that the family of the run brings.\n"
        "--config.FIELD=VALUE overrides a field of the run's config, such as data.data_dir.",
    )
    parser.add_argument("--out", metavar="DIR", help="of the report; default: RUN/report")
    parser.add_argument("--split", default="test", metavar="NAME", help="to study; default: test")
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="this analysis alone; may be repeated"
    )
    parser.add_argument(
        "--ood",
        metavar="NAME_OR_FOLDER",
        help="out-of-distribution images: a data set, such as cifar100, or a folder of images",
    )
    parser.add_argument("--ood_dir", metavar="DIR", help="where the data set of --ood is")
    parser.add_argument(
        "--beside",
        action="append",
        default=[],
        metavar="DIR",
        help="a finished run to compare with, or a folder that holds some; may be repeated",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    return common.guarded(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> None:
    command = common.parse_for_run(_parser(), _options, argv)
    flags: argparse.Namespace = command.flags
    # Before the weights and the data are read, which can take minutes.
    _choose(command.family, flags.only)
    gather(flags.beside)
    check_folder(as_path(flags.workdir) / "report" if flags.out is None else flags.out)
    run = command.load()
    report = analyze(
        run,
        flags.out,
        flags.only,
        flags.ood,
        ood_dir=flags.ood_dir,
        split=flags.split,
        beside=flags.beside,
        **command.options,
    )
    print(summary(report))


if __name__ == "__main__":
    sys.exit(main())

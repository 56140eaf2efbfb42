"""Takes a smaller network out of a trained one and writes it as a folder that can be deployed.

python -m branchnets.tools.slim --workdir=runs/coded_cifar10 --class=airplane --out=airplane
python -m branchnets.tools.predict airplane image.png

What can be asked for is the family's: --help with --workdir lists it.  --config.FIELD=VALUE
overrides a field of the run's config, such as data.data_dir.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from branchnets.families.base import Family
from branchnets.families.study import Option, Slimmed, silent
from branchnets.storage import AnyPath, RemotePath, as_path
from branchnets.tools import common

if TYPE_CHECKING:
    from branchnets.engine.runs import Run


def slim(
    run: Run | str | os.PathLike[str] | RemotePath,
    out: str | os.PathLike[str] | RemotePath | None = None,
    *,
    track: Callable[..., Any] = silent,
    **request: Any,
) -> Slimmed:
    """Takes a smaller network out of a run, as its family understands the request.

    Args:
      run: of :func:`branchnets.load_run`, or its directory.
      out: folder to write it to; see :mod:`branchnets.deploy`.
      track: shows progress; see :class:`branchnets.families.study.Subject`.
      **request: the family's ``slim_options``; of a Coded ResNeXt ``classes="airplane"``, or
        several in a tuple.

    Raises:
      UserError: a run whose network has nothing to take out, a bad request, or a folder that
        cannot be written.

    Example:
      >>> import branchnets
      >>> slimmed = branchnets.slim("runs/coded_digits", classes="7")       # doctest: +SKIP
      >>> slimmed.model.apply(slimmed.variables, images).logits             # doctest: +SKIP
    """
    from branchnets.engine.runs import load_run

    if out is not None:  # now, not after the work
        from branchnets.deploy.folder import check_folder

        check_folder(out)
    if isinstance(run, str | os.PathLike | RemotePath):
        run = load_run(as_path(run))
    if type(run.family).slim is not Family.slim:  # which says itself that there is nothing
        request = common.complete_options(request, run.family.slim_options)
    slimmed = run.family.slim(run.subject(track=track), **request)
    if out is not None:
        write(run, slimmed, out)
    return slimmed


def write(run: Run, slimmed: Slimmed, out: str | os.PathLike[str] | RemotePath) -> AnyPath:
    """Writes what :func:`slim` took out of a run as a folder; see :mod:`branchnets.deploy`.

    Raises:
      UserError: the folder cannot be written.
    """
    from branchnets.deploy.folder import write_folder

    return write_folder(out, run.family.name, slimmed, _preprocessing(run), _parent(run))


def _preprocessing(run: Run) -> Any:
    from branchnets.deploy.preprocess import Preprocessing

    dataset = run.dataset
    return Preprocessing(
        dataset.image_shape, run.content_shape, dataset.central_mean, tuple(dataset.std)
    )


def _parent(run: Run) -> dict[str, Any]:
    return {
        "run": run.path.name,
        "model": run.config.model.name,
        "dataset": run.config.data.name,
        "seed": run.config.seed,
        "step": run.step,
        # That the run was begun with.
        "commit": next(iter(run.run_dir.sources()), {}).get("commit"),
    }


def _parser() -> common.Parser:
    parser = common.run_parser(prog="python -m branchnets.tools.slim", description=__doc__)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    return parser


def _options(family: Family) -> tuple[Option, ...]:
    if type(family).slim is Family.slim:
        family.slim(None)  # type: ignore[arg-type]  # says why there is nothing to take out
    return family.slim_options


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    return common.guarded(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> None:
    command = common.parse_for_run(_parser(), _options, argv)
    flags = command.flags

    from branchnets.deploy.folder import check_folder

    check_folder(flags.out)  # before the weights and the data are read
    slimmed = slim(command.load(), flags.out, track=common.track, **command.options)
    print(slimmed.text)
    print(f"\nWritten to {flags.out}. To use it:")
    print(f"  python -m branchnets.tools.predict {shlex.quote(flags.out)} image.png ...")


if __name__ == "__main__":
    sys.exit(main())

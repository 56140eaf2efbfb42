"""Compiles a config's steps for TPUs that are not here, and prints what they would cost.

    python -m branchnets.tools.compile_only --config=configs/coded_imagenet.py --topology=v2:2x2 \
        --topology=v5e:16x16
    python -m branchnets.tools.compile_only --config=configs/coded_imagenet.py --sweep

Needs libtpu, the compiler (`pip install ".[tpu]"`), and neither a TPU nor the data set.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from branchnets.errors import ConfigError
from branchnets.tools.common import Parser, guarded, say, split_overrides

if TYPE_CHECKING:
    from branchnets.aot.cost import Cost


def _parser() -> Parser:
    parser = Parser(
        prog="python -m branchnets.tools.compile_only",
        description="Compiles the training and the evaluation step of a config for named TPU "
        "topologies: memory, FLOPs, bytes moved, collectives, and an estimate of time, on each "
        "device. No TPU and no data are needed.",
        epilog="--config.FIELD=VALUE overrides a field. Exit status: 0 done, 1 a claim of --sweep "
        "fails, 2 bad input.",
    )
    parser.add_argument("--config", required=True, metavar="FILE[:ARGUMENTS]")
    parser.add_argument(
        "--topology",
        action="append",
        default=[],
        metavar="NAME",
        help="GENERATION:MESH, such as v2:2x2 (8 cores), v5e:16x16 or v4:4x4x4; may be repeated",
    )
    parser.add_argument(
        "--step", choices=("train", "eval"), help="compile this one alone (default: both)"
    )
    parser.add_argument(
        "--sweep",
        nargs="?",
        const="v3,v4",
        metavar="v3,v4",
        help="compile the training step for 8, 64, 256 and 1,024 devices, and check what must not "
        "depend on their number",
    )
    parser.add_argument(
        "--per_device_batch",
        type=int,
        metavar="N",
        help="examples of a device in --sweep (default: the config's batch over the first "
        "--topology, or over 8 devices)",
    )
    parser.add_argument(
        "--no_search",
        action="store_true",
        help="where a step does not fit, do not look for the largest batch that does",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON list; the tables go to stderr"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    overrides, rest = split_overrides(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_all(rest)
    failed = False

    def work() -> None:
        nonlocal failed
        failed = not _run(options, overrides)

    return guarded(work) or int(failed)


def _run(options: argparse.Namespace, overrides: Sequence[str]) -> bool:
    """Whether everything that was to hold does."""
    from branchnets.aot import topologies

    if not options.topology and options.sweep is None:
        raise ConfigError("give --topology=NAME, such as v2:2x2 or v5e:16x16, or --sweep.")
    for name in options.topology:
        topologies.parse(name)  # all of them, before the first is compiled for
    topologies.prepare_environment()
    from branchnets.engine import config as configs

    config = configs.load(options.config, overrides)
    if options.sweep is not None:
        return _sweep(options, config)
    from branchnets.aot import study, tables

    everything: list[Cost] = []
    for name in options.topology:
        topology = topologies.find(name)
        found = list(
            study.costs(config, topology, only=options.step, search=not options.no_search, say=_say)
        )
        everything += found
        text = [tables.heading(topology, options.config), tables.table(found)]
        _show(options, *text, f"Peak rates: {topology.chip.source}.")
    if options.json:
        _print_json(everything)
    return True


def _sweep(options: argparse.Namespace, config) -> bool:  # type: ignore[no-untyped-def]
    from branchnets.aot import study, tables, topologies

    generations = options.sweep.split(",")
    for generation in generations:
        if generation not in topologies.SWEEPS:
            raise ConfigError(f"--sweep={options.sweep}: there is {', '.join(topologies.SWEEPS)}.")
    devices = len(topologies.find(options.topology[0]).devices) if options.topology else 8
    per_device = options.per_device_batch or max(config.batch_size // devices, 1)
    everything, holds = [], True
    for generation in generations:
        found = list(study.sweep(config, [generation], per_device, _say))
        everything += found
        for step in dict.fromkeys(one.step for one in found):
            own = [one for one in found if one.step == step]
            claimed = study.claims(own, config, per_device)
            holds &= all(claim.holds is not False for claim in claimed)
            title = f"{options.config}, {step}, {per_device} examples a device"
            _show(options, title, tables.sweep_table(own), tables.claims_table(claimed))
    if options.json:
        _print_json(everything)
    return holds


def _show(options: argparse.Namespace, *paragraphs: str) -> None:
    """Prints text; beside JSON, on standard error."""
    stream = sys.stderr if options.json else sys.stdout
    print("\n\n".join(paragraphs), end="\n\n", file=stream, flush=True)


def _print_json(found: Sequence[Cost]) -> None:
    print(json.dumps([one.as_dict() for one in found], indent=2))


def _say(text: str) -> None:
    say(text)
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())

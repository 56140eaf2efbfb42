"""Compiles a config's steps for TPUs that are not here, and prints what they would cost.

    python -m branchnets.tools.compile_only --config=configs/coded_imagenet.py --topology=v2:2x2 \
        --topology=v3-32
    python -m branchnets.tools.compile_only --config=configs/coded_imagenet.py --topology=v2:2x2 \
        --against=configs/resnext_imagenet.py
    python -m branchnets.tools.compile_only --config=configs/coded_imagenet.py --sweep

Needs libtpu, the compiler (`pip install ".[tpu]"`), and neither a TPU nor the data set. A training
step on ImageNet takes it one to four minutes on two free cores; --sweep compiles eight, and where
a step does not fit, the search for a batch that does several (--no_search leaves it out).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from branchnets.errors import ConfigError
from branchnets.tools.common import Parser, guarded, say, split_overrides

if TYPE_CHECKING:
    from ml_collections import ConfigDict

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
        help="GENERATION:MESH of chips, such as v2:2x2 (8 cores), v5e:16x16 or v4:4x4x4, or the "
        "accelerator type, such as v2-8, v5litepod-256 or v4-128; may be repeated",
    )
    parser.add_argument(
        "--step", choices=("train", "eval"), help="compile this one alone (default: both)"
    )
    parser.add_argument(
        "--against",
        metavar="FILE[:ARGUMENTS]",
        help="compile the steps of this config too, with the same overrides, and print the ratios",
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
        type=_positive,
        metavar="N",
        help="examples of a device in --sweep (default: the config's batch over the first "
        "--topology, or over 8 devices)",
    )
    parser.add_argument(
        "--no_search",
        action="store_true",
        help="where a step does not fit, do not look for the largest batch that does",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON list and no tables")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive whole number, not {text!r}")
    return int(text)


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
        raise ConfigError("give --topology=NAME, such as v2:2x2 or v3-32, or --sweep.")
    if options.sweep is not None and (options.against or options.step):
        raise ConfigError(
            "--sweep compiles the training step of one config: leave out --against and --step."
        )
    if options.sweep is None and options.per_device_batch:
        raise ConfigError(
            "--per_device_batch is for --sweep; give --config.batch_size of all devices."
        )
    for name in options.topology:
        topologies.parse(name)  # all of them, before the first is compiled for
    topologies.prepare_environment()
    from branchnets.engine import config as configs

    config = configs.load(options.config, overrides)
    if options.sweep is not None:
        return _sweep(options, config)
    other = configs.load(options.against, overrides) if options.against else None
    rows = [row for name in options.topology for row in _topology(options, config, other, name)]
    if options.json:
        print(json.dumps(rows, indent=2))
    return True


def _topology(
    options: argparse.Namespace, config: ConfigDict, other: ConfigDict | None, name: str
) -> list[dict[str, Any]]:
    """Compiles for one topology and prints the tables; returns what goes into JSON."""
    from branchnets.aot import against, study, tables, topologies
    from branchnets.engine import config as configs

    topology = topologies.find(name)

    def costs(config: ConfigDict) -> list[Cost]:
        if options.step != "eval" and (
            spread := configs.spread_groups(config, len(topology.devices))
        ):
            _say(spread)
        search = not options.no_search
        return list(study.costs(config, topology, only=options.step, search=search, say=_say))

    found = costs(config)
    text = [tables.heading(topology, options.config), tables.table(found)]
    rows = [_as_dict(options.config, one) for one in found]
    if other is not None:
        others = costs(other)
        text += [tables.heading(topology, options.against), tables.table(others)]
        text += [against.table(found, others, options.against)]
        for row, one in zip(rows, found, strict=True):
            if (partner := against.partner(one, others)) is not None:
                row["against"] = {"config": options.against, **against.ratios(one, partner)}
        rows += [_as_dict(options.against, one) for one in others]
    _show(options, *text, f"Peak rates: {topology.chip.source}.")
    return rows


def _sweep(options: argparse.Namespace, config: ConfigDict) -> bool:
    """Compiles for growing numbers of devices; whether what was to hold does."""
    from branchnets.aot import study, tables, topologies

    generations = options.sweep.split(",")
    for generation in generations:
        if generation not in topologies.SWEEPS:
            raise ConfigError(f"--sweep={options.sweep}: there is {', '.join(topologies.SWEEPS)}.")
    devices = len(topologies.find(options.topology[0]).devices) if options.topology else 8
    per_device = options.per_device_batch or max(config.batch_size // devices, 1)
    rows: list[dict[str, Any]] = []
    holds = True
    for generation in generations:
        found = list(study.sweep(config, [generation], per_device, _say))
        rows += [_as_dict(options.config, one) for one in found]
        for step in dict.fromkeys(one.step for one in found):
            own = [one for one in found if one.step == step]
            claimed = study.claims(own, config, per_device)
            failed = [claim for claim in claimed if claim.holds is False]
            holds &= not failed
            if options.json and failed:
                _say(f"{generation}, {step}:\n{tables.claims_table(failed)}")
            title = f"{options.config}, {step}, {per_device} examples a device"
            _show(options, title, tables.sweep_table(own), tables.claims_table(claimed))
    if options.json:
        print(json.dumps(rows, indent=2))
    return holds


def _show(options: argparse.Namespace, *paragraphs: str) -> None:
    """Prints text, unless JSON was asked for."""
    if not options.json:
        print("\n\n".join(paragraphs), end="\n\n", flush=True)


def _as_dict(config: str, one: Cost) -> dict[str, Any]:
    return {"config": config, **one.as_dict()}


def _say(text: str) -> None:
    say(text)
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())

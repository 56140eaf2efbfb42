"""Prints the parameters, the multiply-adds and the stages of a model or of a config's model.

    python -m branchnets.tools.describe coded_resnext29_10x11d_cifar10
    python -m branchnets.tools.describe --config=configs/coded_digits.py --config.data.image_size=8

Nothing is computed and no data is read: everything follows from shapes.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence

import flax.linen as nn

from branchnets import registry
from branchnets.counting import Description, describe
from branchnets.tools.common import Parser, split_overrides


def _parser() -> Parser:
    parser = Parser(
        prog="python -m branchnets.tools.describe",
        description="Parameters, multiply-adds (MACs) for one input, and a table of the stages.",
        epilog="With --config, --config.FIELD=VALUE overrides a field.",
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help="name of a registered model")
    parser.add_argument(
        "--config", metavar="FILE[:ARGUMENTS]", help="describe this config's model on its data"
    )
    parser.add_argument("--num_classes", type=int, metavar="K", help="default: the model's own")
    parser.add_argument(
        "--image_size", type=int, metavar="PIXELS", help="side of the images; default: usual one"
    )
    parser.add_argument(
        "--depth", type=int, default=1, metavar="N", help="1: a row a stage (default), 2: a block"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser


def _from_config(
    path: str, overrides: Sequence[str], num_classes: int | None
) -> tuple[str, nn.Module, tuple[int, int, int], int]:
    # Only this way in needs the engine and its command-line library.
    from branchnets import data
    from branchnets.engine import config as configs

    config = configs.load(path, overrides)
    spec = data.spec(None, config.data)
    if num_classes is not None:
        spec = dataclasses.replace(spec, num_classes=num_classes)
    model = registry.build_from_config(config, spec)
    return config.model.name, model, spec.image_shape, spec.num_classes


def table(description: Description) -> str:
    """The stages as text: name, output shape, parameters, multiply-adds, and their sums."""
    rows = [("stage", "output", "parameters", "MACs")]
    for row in description.stages:
        shape = "x".join(map(str, row.output_shape)) if row.output_shape is not None else "-"
        rows.append((row.name, shape, f"{row.parameters:,}", f"{row.macs:,}"))
    rows.append(("total", "", f"{description.parameters:,}", f"{description.macs:,}"))
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    rule = "-" * max(map(len, lines))
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def _short(count: int) -> str:
    """A count to four digits: 2.159 G, 4.639 M, 220.5 k."""
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= size:
            return f"{count / size:.4g}{letter}"
    return str(count)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; exits with status 2 and a message on bad input."""
    parser = _parser()
    overrides, rest = split_overrides(sys.argv[1:] if argv is None else argv)
    arguments = parser.parse_all(rest)
    if (arguments.model is None) == (arguments.config is None):
        parser.error(
            "name a model or give --config=FILE, one of the two; the models are: "
            + ", ".join(registry.list_models())
        )
    if overrides and arguments.config is None:
        parser.error(f"{overrides[0]!r} overrides a config; give --config=FILE too")
    num_classes = arguments.num_classes
    try:
        if num_classes is not None and num_classes < 1:
            raise ValueError(f"--num_classes must be positive, got {num_classes}")
        if arguments.config is not None:
            name, model, shape, classes = _from_config(arguments.config, overrides, num_classes)
        else:
            name = arguments.model
            entry = registry.entry(name)
            shape = entry.image_shape
            classes = entry.num_classes if num_classes is None else num_classes
            model = registry.create_model(name, num_classes=classes)
        if arguments.image_size is not None:
            if arguments.image_size < 1:
                raise ValueError(f"--image_size must be positive, got {arguments.image_size}")
            shape = (arguments.image_size, arguments.image_size, shape[2])
        description = describe(model, shape, depth=arguments.depth)
    except ValueError as error:
        parser.exit(2, f"error: {error}\n")

    if arguments.json:
        document = {"model": name, "num_classes": classes, **dataclasses.asdict(description)}
        json.dump(document, sys.stdout, indent=2)
        print()
        return
    height, width, channels = shape
    print(f"{name}: {classes} classes, images {height}x{width}x{channels}\n")
    print(table(description))
    parameters, macs = _short(description.parameters), _short(description.macs)
    print(f"\n{parameters} parameters, {macs} MACs for one input")
    if description.weight_macs:
        print(f"(and {_short(description.weight_macs)} MACs once a batch, on the weights alone)")


if __name__ == "__main__":
    main()

"""Searches for a coding scheme: codewords far apart, and branches evenly used.

    python -m branchnets.tools.codes --classes=1000 --branches=32 --active=16 --out=codes.txt

The file has one codeword a line, line = class index: give its name in config.coded.schemes.
Without --min_distance the largest minimum distance is looked for.  Exit status: 0; 1 where
--min_distance was not reached (the best found is written); 2 for a request that cannot be met.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from branchnets.errors import UserError
from branchnets.families.coded.search import bounds, outfile, packed
from branchnets.families.coded.search.bar import Bar
from branchnets.families.coded.search.problem import Request, Scheme
from branchnets.families.coded.search.search import Result, find
from branchnets.tools.common import Parser


def _parser() -> Parser:
    parser = Parser(
        prog="python -m branchnets.tools.codes",
        description="Finds K codewords of N_act ones among N, as far apart as can be and with\n"
        "every branch in equally many, and says how good they provably are.",
        epilog="Exit status 1: --min_distance was not reached; the best found is written.",
    )
    parser.add_argument("--classes", type=int, required=True, metavar="K")
    parser.add_argument("--branches", type=int, required=True, metavar="N")
    parser.add_argument(
        "--active", type=int, required=True, metavar="N_ACT", help="ones of every codeword"
    )
    parser.add_argument(
        "--min_distance", type=int, metavar="D", help="default: the largest that can be found"
    )
    parser.add_argument("--out", type=pathlib.Path, metavar="FILE", help="one codeword a line")
    parser.add_argument("--force", action="store_true", help="overwrite FILE")
    parser.add_argument("--seed", type=int, default=0, help="of the random choices (default 0)")
    parser.add_argument(
        "--budget",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="the search ends then with the best found (default 60); Ctrl-C ends it earlier",
    )
    return parser


def _bound(request: Request, distance: int) -> str:
    """The bounds at a distance, as text."""
    n, a = request.branches, request.active
    delsarte, johnson = bounds.delsarte_bound(n, distance, a), bounds.johnson_bound(n, distance, a)
    text = f"at most {delsarte} words are {distance} apart (linear programming)"
    return text + (f", {johnson} (Johnson)" if johnson < delsarte else "")


def _verdict(request: Request, result: Result, distance: int) -> str:
    """What is known about better schemes."""
    next_ = distance + 2
    if result.optimal:
        if next_ in result.exhausted:
            return f"the best there can be: an exhaustive search ruled {next_} out"
        if distance >= 2 * min(request.active, request.branches - request.active):
            return f"the best there can be: no two words of this weight are {next_} apart"
        return f"the best there can be: {next_} is impossible for {request.classes} classes"
    why = "the search ended first" if not result.finished else "not looked for"
    return f"not known to be the best: {result.largest} is not ruled out, {why}"


def _counted(sums: np.ndarray) -> str:
    """How many branches have each sum."""
    if sums.min() == sums.max():
        return f"all {len(sums)} branches"
    values, counts = np.unique(sums, return_counts=True)
    return ", ".join(f"{value} in {count}" for value, count in zip(values, counts, strict=True))


def report(request: Request, result: Result) -> str:
    """The figures of a scheme: H_min, column sums, histogram of distances, bounds."""
    scheme = result.scheme
    distance = scheme.min_distance
    sums = scheme.codewords.sum(0, dtype=int)
    lines = [
        f"{request.classes} classes, {request.branches} branches, {request.active} active",
        f"  H_min        {'none: one class' if distance is None else distance}",
        f"  column sums  {sums.min()} to {sums.max()} ({_counted(sums)})",
    ]
    if distance is not None:
        histogram = packed.distance_histogram(scheme.words).items()
        pairs = ", ".join(f"{d}: {count}" for d, count in histogram)
        lines += [f"  distances    {pairs} (distance: pairs)"]
    lines.append(f"  found by     {scheme.source}")
    if distance is not None:
        lines += [
            f"  bounds       {_bound(request, distance)}",
            f"               {_bound(request, distance + 2)}",
            f"  H_min {distance} is {_verdict(request, result, distance)}",
        ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status, or exits with 2 and a message."""
    parser = _parser()
    args = parser.parse_all(sys.argv[1:] if argv is None else argv)
    wanted = args.min_distance
    try:
        if not args.budget > 0:  # nan too
            raise UserError(f"--budget must be above 0 seconds, got {args.budget:g}")
        if args.seed < 0:
            raise UserError(f"--seed must be 0 or more, got {args.seed}")
        request = Request(args.classes, args.branches, args.active, wanted)
        if args.out is not None:
            outfile.check_writable(args.out, args.force)
    except UserError as error:
        parser.exit(2, f"error: {error}\n")
    if wanted is not None and wanted % 2:
        wanted += 1
        print(
            f"note: words of one weight are an even distance apart; looking for {wanted}",
            file=sys.stderr,
        )
    with Bar(args.budget) as bar:

        def announce(scheme: Scheme) -> None:
            bar.best(f"H_min {scheme.min_distance}, columns within {scheme.spread}")

        try:
            result = find(
                request, seed=args.seed, budget=args.budget, report=bar.doing, announce=announce
            )
        except KeyboardInterrupt:  # so early that there is no scheme yet
            parser.exit(130, "stopped.\n")
    print(report(request, result))
    if args.out is not None:
        try:
            outfile.write(args.out, result.scheme.codewords)
        except UserError as error:
            parser.exit(2, f"error: {error}\n")
        print(f"Wrote {args.out}")
    else:
        print("Not kept: --out=FILE writes the codewords")
    found = result.scheme.min_distance
    if wanted is not None and found is not None and found < wanted:
        print(
            f"A minimum distance of {wanted} was not reached; no bound rules it out: try a larger "
            "--budget, or another --seed",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Scores images with a network that ``tools.slim`` wrote, and says what it decides.

python -m branchnets.tools.predict DIR image.png ... [--form=export] [--json]

One line a file.  An image of another size or number of channels is made to fit, with a notice; one
that cannot be read is named, the others are scored all the same, and the exit status is 2.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from branchnets.errors import DataError
from branchnets.tools import common

if TYPE_CHECKING:
    from branchnets.deploy.classifier import Classifier


def predict(
    classifier: Classifier, paths: Sequence[str | Path]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Scores image files.

    Returns:
      (one record a file that can be read, one message a file that cannot).  A record has "file",
      "scores" (output -> float), "decision" (output -> bool where the network has thresholds, else
      the name of an output) and "notice" (what was done to the image, or "").
    """
    images: list[Any] = []
    records: list[dict[str, Any]] = []
    errors: list[str] = []
    for path in paths:
        try:
            image, notice = classifier.preprocessing.read(path)
        except DataError as error:
            errors.append(str(error))
            continue
        images.append(image)
        records.append({"file": str(path), "notice": notice})
    if not images:
        return [], errors
    import numpy as np

    scores = classifier.scores(np.stack(images))
    for record, row, decided in zip(records, scores, classifier.decide(scores), strict=True):
        record["scores"] = dict(zip(classifier.outputs, map(float, row), strict=True))
        record["decision"] = (
            classifier.outputs[int(decided)]
            if classifier.thresholds is None
            else dict(zip(classifier.outputs, map(bool, decided), strict=True))
        )
    return records, errors


def _lines(records: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    width = max((len(record["file"]) for record in records), default=0)
    for record in records:
        scores, decision = record["scores"], record["decision"]
        if isinstance(decision, str):
            text = f"{decision}  {scores[decision]:.4f}"
        else:
            parts = (f"{n} {s:.4f} {'yes' if decision[n] else 'no'}" for n, s in scores.items())
            text = "  ".join(parts)
        lines.append(f"{record['file']:<{width}}  {text}")
    return lines


def _parser() -> common.Parser:
    parser = common.Parser(prog="python -m branchnets.tools.predict", description=__doc__)
    parser.add_argument("folder", metavar="DIR", help="of branchnets.tools.slim")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files")
    parser.add_argument(
        "--form",
        default="module",
        help="what computes the scores: module, or export for the exported program (%(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON list on stdout")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    arguments = _parser().parse_all(sys.argv[1:] if argv is None else argv)
    failed: list[str] = []
    status = common.guarded(lambda: failed.extend(_main(arguments)))
    return 2 if failed else status


def _main(arguments: Any) -> list[str]:
    from branchnets.deploy.classifier import load_classifier

    classifier = load_classifier(arguments.folder, arguments.form)
    records, errors = predict(classifier, arguments.images)
    for record in records:
        if record["notice"]:
            print(f"notice: {record['file']}: {record['notice']}", file=sys.stderr)
    for message in errors:
        print(f"error: {message}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(records, indent=2, ensure_ascii=False))
    elif records:
        print("\n".join(_lines(records)))
    return errors


if __name__ == "__main__":
    sys.exit(main())

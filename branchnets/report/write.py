"""Writes a report: index.html, a PNG (and SVG) a figure, a CSV a table, report.json; as a whole."""

from __future__ import annotations

import csv
import io
import json
import math
import numbers
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from branchnets import folders
from branchnets.errors import ReportError
from branchnets.report.content import Section, Table
from branchnets.report.page import render
from branchnets.storage import AnyPath

#: Of report.json; a report is known by it.
FORMAT = "branchnets report 1"

_RECORD = "report.json"
_DPI = 144


def check_folder(folder: str | AnyPath) -> AnyPath:
    """Where a report will be written; see :func:`branchnets.folders.check`.

    Raises:
      ReportError: it cannot be written, or holds something else than a report.
    """
    return folders.check(folder, _KIND)


def write_report(
    folder: str | AnyPath,
    title: str,
    sections: Sequence[Section],
    header: Mapping[str, str],
    footer: str = "",
) -> AnyPath:
    """Writes the files beside their place and moves them there when all of them are whole.

    An older report is replaced; files in its folder that are not of it are kept, one that has the
    name of a new file as ``NAME.old``.

    Args:
      folder: made if need be.
      title: heading of the page.
      sections: in order.
      header: facts that hold for all of it, name -> text.
      footer: a line at the end of the page.

    Returns:
      The path of index.html.

    Raises:
      ReportError: it cannot be written; what was there before is untouched.
      ValueError: two figures or two tables of one name, or a name that cannot be a file's.
    """
    check_folder(folder)
    files = render_files(title, sections, header, footer)
    return folders.write(folder, files, _KIND) / "index.html"


def render_files(
    title: str, sections: Sequence[Section], header: Mapping[str, str], footer: str = ""
) -> dict[str, bytes]:
    """Name -> contents of every file of a report; arguments as of :func:`write_report`."""
    figures = [figure for section in sections for figure in section.figures]
    tables = [table for section in sections for table in section.tables]
    _check_names("figure", [figure.name for figure in figures])
    _check_names("table", [table.name for table in tables])
    pictures = {figure.name: _png(figure.drawing) for figure in figures}
    files = {f"{name}.png": data for name, data in pictures.items()}
    files |= {f"{f.name}.svg": _svg(f.name, f.drawing) for f in figures if f.svg}
    files |= {f"{table.name}.csv": csv_text(table).encode() for table in tables}
    files["index.html"] = render(title, sections, pictures, header, footer).encode()
    record = {
        "format": FORMAT,
        "title": title,
        "header": dict(header),
        "sections": {s.title: plain(s.figures_of_merit) for s in sections if s.figures_of_merit},
        "files": sorted([*files, _RECORD]),
    }
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
    files[_RECORD] = (text + "\n").encode()
    return files


def csv_text(table: Table) -> str:
    """A table as CSV: numbers in full, an empty cell for None."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table.headers)
    for row in table.rows:
        if len(row) != len(table.headers):
            raise ValueError(f"table {table.name!r} has a row of another length: {row}")
        writer.writerow([plain(value) for value in row])
    return stream.getvalue()


def plain(value: Any) -> Any:
    """A value as JSON knows it: NumPy's numbers as Python's, what is not finite as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        return float(value) if math.isfinite(value) else None
    return value


def _check_names(kind: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            raise ValueError(f"{name!r} cannot be the name of a file")
        if name.lower() in seen:  # some file systems do not tell cases apart
            raise ValueError(f"two {kind}s are called {name!r}")
        seen.add(name.lower())


def _png(drawing: Any) -> bytes:
    stream = io.BytesIO()
    # Without the writing program's name the same drawing is the same file.
    drawing.savefig(stream, format="png", dpi=_DPI, metadata={"Software": None})
    return stream.getvalue()


def _svg(name: str, drawing: Any) -> bytes:
    from matplotlib import rc_context

    stream = io.BytesIO()
    # Names of parts that depend on the drawing alone, and no date: the same bytes again.
    with rc_context({"svg.hashsalt": name}):
        drawing.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def _files_of(folder: AnyPath) -> set[str] | None:
    """The names of the files of the report in a folder, or None if there is none."""
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        return {_RECORD, *record["files"]} if record["format"] == FORMAT else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


_KIND = folders.Kind("report", ReportError, _files_of, keep=True)

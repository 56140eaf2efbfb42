"""What an analysis gives back: text, figures and tables, not yet written anywhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


@dataclasses.dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
      name: its file is ``NAME.png``; begins with the paper's name for it: ``fig2a_specialisation``.
      caption: what is seen, and what it means.
      drawing: from :func:`branchnets.report.style.figure`.
      svg: whether it is also written as ``NAME.svg``, to be enlarged.
    """

    name: str
    caption: str
    drawing: Drawing
    svg: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
      name: its file is ``NAME.csv``.
      caption: what is counted, in which units.
      headers: one a column.
      rows: texts and numbers, written in full to the CSV and shortened on the page; None is
        "–", a cell that no run fills.
    """

    name: str
    caption: str
    headers: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclasses.dataclass(frozen=True)
class Section:
    """One part of a report.

    Attributes:
      title: its heading.
      text: paragraphs of plain text, an empty line between two.
      figures, tables: in the order in which they are shown.
      figures_of_merit: name -> number (or nested mapping of numbers), for ``report.json``.
    """

    title: str
    text: str = ""
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    figures_of_merit: Mapping[str, Any] = dataclasses.field(default_factory=dict)

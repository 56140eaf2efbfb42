"""How the figures of a report look: one size of text, one palette, no global state.

Palette: M. Okabe and K. Ito, "Color Universal Design", 2008: told apart by colour-blind readers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Okabe and Ito's colours by name; :data:`PALETTE` is their order of use.
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, YELLOW, BLACK = "#CC79A7", "#56B4E9", "#F0E442", "#000000"
PALETTE = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, BLACK, YELLOW)

GREY = "#666666"

_TEXT = {"title": 11, "label": 10, "tick": 9, "note": 8}


def figure(
    width: float = 6.4, height: float = 4.0, rows: int = 1, columns: int = 1, **settings: Any
) -> tuple[Figure, Any]:
    """An empty drawing and its axes, not registered anywhere: dropped when nobody holds it.

    Args:
      width, height: inches, of the whole drawing.
      rows, columns: of panels.
      **settings: of ``Figure.subplots``, such as ``sharey=True``.

    Returns:
      (figure, axes); axes is one ``Axes``, or an array as ``Figure.subplots`` shapes it.
    """
    from cycler import cycler
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(drawing)
    axes = drawing.subplots(rows, columns, **settings)
    for one in drawing.axes:
        one.set_prop_cycle(cycler(color=PALETTE))
        one.grid(True, color="#dddddd", linewidth=0.6)
        one.set_axisbelow(True)
        one.tick_params(labelsize=_TEXT["tick"])
        for side in ("top", "right"):
            one.spines[side].set_visible(False)
    return drawing, axes


def label(axes: Axes, x: str, y: str, title: str | None = None) -> None:
    """Names the axes, with units, and the panel."""
    axes.set_xlabel(x, fontsize=_TEXT["label"])
    axes.set_ylabel(y, fontsize=_TEXT["label"])
    if title is not None:
        axes.set_title(title, fontsize=_TEXT["title"])


def reference(axes: Axes, value: float, text: str, *, axis: str = "y", colour: str = GREY) -> None:
    """Marks a number of the paper: a dashed grey line with its text, and room for both.

    Args:
      axes: to draw on.
      value: in the units of the axis.
      text: what it is, such as "paper: 94.41".
      axis: "y" for a horizontal line, "x" for a vertical one.
      colour: where grey would not do.
    """
    settings: dict[str, Any] = {"color": colour, "linestyle": (0, (4, 3)), "linewidth": 1.0}
    words: dict[str, Any] = {"color": colour, "fontsize": _TEXT["note"], "clip_on": False}
    if axis == "y":
        axes.axhline(value, **settings)
        where = axes.get_yaxis_transform()
        axes.text(0.99, value, text, ha="right", va="bottom", transform=where, **words)
    elif axis == "x":
        axes.axvline(value, **settings)
        where = axes.get_xaxis_transform()
        axes.text(value, 0.99, f" {text}", ha="left", va="top", transform=where, **words)
    else:
        raise ValueError(f'axis is "x" or "y", not {axis!r}')


def legend(axes: Axes, **settings: Any) -> None:
    """The legend, where it covers least, in small type; nothing if nothing has a label."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=_TEXT["tick"], frameon=True, framealpha=0.85, **settings)

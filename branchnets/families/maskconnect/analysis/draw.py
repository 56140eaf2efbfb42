"""Draws a connectivity diagram."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from branchnets.families.maskconnect.analysis.scene import HALF, RADIUS, Bundle, Scene
from branchnets.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: With more branches a module, edges to branches that reach nobody are left out.
MANY = 16

_FAINT = "#b8b8b8"
_LEVELS = 6  # of real-valued masks
_DENSE = 128  # edges into a module


def draw(scenes: dict[str, Scene], prefix: dict[str, str]) -> Figure:
    """Diagrams side by side.

    Args:
      scenes: title -> diagram of the same modules.
      prefix: title -> what the names of its squares in the SVG begin with:
        ``PREFIX:stage2/block0:3``.
    """
    sizes = list(scenes.values())
    widest, tallest = max(s.width for s in sizes), max(s.height for s in sizes)
    unit = float(np.clip(5.0 / widest, 0.2, 0.4))  # inches
    width = len(sizes) * (widest + 0.6) * unit + 2.0
    # Room for two lines of a title, and the legend.
    drawing, axes = style.figure(width, tallest * unit + 0.95, 1, len(sizes), squeeze=False)
    for number, (one, (title, scene)) in enumerate(zip(axes.flat, scenes.items(), strict=True)):
        _diagram(one, scene, prefix[title])
        first, last = number == 0, number == len(sizes) - 1
        _words(one, scene, first, last)
        one.set_title(title, fontsize=11)
    _legend(drawing, sizes)
    return drawing


def _diagram(axes: Axes, scene: Scene, prefix: str) -> None:
    from matplotlib.patches import Circle, Rectangle

    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.set_xlim(-scene.width / 2 - 0.2, scene.width / 2 + 0.2)
    axes.set_ylim(scene.head[1] - RADIUS - 0.1, scene.stem[1] + RADIUS + 0.1)
    for bundle in scene.bundles:
        _edges(axes, bundle, scene)
    for square in scene.squares:
        x, y = square.centre
        inside, edge = (style.GREEN, "#00694d") if square.alive else ("white", "#8a8a8a")
        patch = Rectangle((x - HALF, y - HALF), 2 * HALF, 2 * HALF, fc=inside, ec=edge, zorder=3)
        patch.set_linewidth(0.8)
        patch.set_gid(f"{prefix}:{square.module}:{square.branch}")
        axes.add_patch(patch)
    for centre in (scene.stem, scene.head):
        axes.add_patch(
            Circle(centre, RADIUS, facecolor=style.VERMILLION, edgecolor="#8a3d00", zorder=3)
        )


def _edges(axes: Axes, bundle: Bundle, scene: Scene) -> None:
    if scene.width <= MANY:
        _curves(axes, bundle, ~bundle.alive, _FAINT, 0.6, 0.9, 1)
    count = max(len(bundle.weights), 1)
    thick = float(np.clip(5 / np.sqrt(count), 0.12, 1.3))
    strong = 0.85 * float(np.clip(np.sqrt(128 / count), 0.1, 1.0))
    level = np.ceil(bundle.weights * _LEVELS) / _LEVELS
    graded = len(np.unique(level)) > 1  # else 0/1 masks, and one look
    # The edges of one path do not darken each other, so where they are many each branch that
    # reads has a path of its own.
    reader = bundle.ends[:, 0] if count > _DENSE else np.zeros(len(bundle.ends))
    for x, value in sorted({(x, v) for x, v in zip(reader, level, strict=True)}):
        chosen = bundle.alive & (level == value) & (reader == x)
        width = thick * (0.4 + 1.6 * value) if graded else thick
        alpha = strong * (0.15 + 0.85 * value) if graded else strong
        _curves(axes, bundle, chosen, style.BLUE, float(width), float(alpha), 2)


def _curves(
    axes: Axes,
    bundle: Bundle,
    chosen: np.ndarray,
    colour: str,
    thick: float,
    alpha: float,
    order: int,
) -> None:
    """Many edges as one path, which keeps an SVG of tens of thousands of them small."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    starts, ends = bundle.starts[chosen], bundle.ends[chosen]
    # Few edges are followed more easily as curves, many as straight lines.
    squares = max(len(np.unique(x)) for x in (bundle.starts[:, 0], bundle.ends[:, 0]))
    curved = 0.5 if len(bundle.starts) <= 2 * squares else 0.12
    if not len(starts):
        return
    bend = np.array([0.0, curved]) * (starts - ends)
    points = np.stack([starts, starts - bend, ends + bend, ends], axis=1).reshape(-1, 2)
    codes = np.tile([Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4], len(starts))
    look: dict[str, Any] = {"edgecolor": colour, "linewidth": thick, "alpha": alpha}
    axes.add_patch(PathPatch(Path(points, codes), fill=False, zorder=order, **look))


def _words(axes: Axes, scene: Scene, names: bool, counts: bool) -> None:
    look: dict[str, Any] = {"fontsize": 9, "color": "#333333", "va": "center", "clip_on": False}
    edge = scene.width / 2 + 0.15
    for module, y, active, branches in scene.rows:
        if names:
            axes.text(-edge, y, module, ha="right", **look)
        if counts:
            axes.text(edge, y, f"{active} of {branches}", ha="left", **look)
    for text, (x, y) in (("stem", scene.stem), ("head", scene.head)):
        axes.text(x + RADIUS + 0.25, y, text, ha="left", **look)


def _legend(drawing: Figure, scenes: list[Scene]) -> None:
    from matplotlib.lines import Line2D

    marks: dict[str, Any] = {"linestyle": "none", "marker": "s", "markersize": 8}
    handles = [
        Line2D([], [], color=style.GREEN, label="reaches the output", **marks),
    ]
    if not all(square.alive for scene in scenes for square in scene.squares):
        handles.append(
            Line2D([], [], color="#8a8a8a", markerfacecolor="white", label="can be pruned", **marks)
        )
    drawing.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=9, frameon=False)

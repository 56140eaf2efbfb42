"""Figures without global state, and marks where they belong."""

import io
import sys

import numpy as np
import pytest

from branchnets.report import style


def test_a_figure_is_drawn_without_pyplot():
    before = "matplotlib.pyplot" in sys.modules
    drawing, axes = style.figure()
    axes.plot([0, 1], [1, 2], label="a line")
    style.label(axes, "x [s]", "y [%]", "title")
    style.legend(axes)
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png")
    assert buffer.getvalue().startswith(b"\x89PNG")
    assert ("matplotlib.pyplot" in sys.modules) == before
    assert axes.get_xlabel() == "x [s]" and axes.get_title() == "title"
    assert axes.lines[0].get_color() == style.PALETTE[0]


def test_panels_share_what_is_asked():
    _, axes = style.figure(rows=2, columns=3, sharey=True)
    assert axes.shape == (2, 3)
    assert len(set(style.PALETTE)) == len(style.PALETTE)


@pytest.mark.parametrize("axis", ["x", "y"])
def test_a_reference_is_a_dashed_line_at_its_value(axis):
    _, axes = style.figure()
    axes.plot([0, 1], [0, 1])
    style.reference(axes, 0.9441, "paper: 94.41", axis=axis)
    line = axes.lines[-1]
    data = line.get_ydata() if axis == "y" else line.get_xdata()
    np.testing.assert_allclose(data, 0.9441)
    assert line.is_dashed()
    assert axes.texts[0].get_text().strip() == "paper: 94.41"


def test_a_reference_on_no_axis_is_refused():
    _, axes = style.figure()
    with pytest.raises(ValueError, match="axis"):
        style.reference(axes, 1, "", axis="z")

"""Entropy and churn of the masks, from lines as training writes them."""

import json
import math

import maskconnect_subject as made
import numpy as np
import pytest

from branchnets.families.maskconnect.analysis import evolution, evolution_report

STEPS = (10, 20, 30, 40, 60, 100)  # ten a epoch: learning ends at 40


def line(step, split="train", **metrics):
    return {"step": step, "split": split, "epoch": step / 10, "accuracy": step / 100, **metrics}


def history(frozen_after=40):
    lines = []
    for step in STEPS:
        left = max(0.0, 1 - step / 100) if step <= frozen_after else 0.0
        values = {}
        for number, name in enumerate(made.NAMES[1:], start=1):
            values[f"mask_entropy/{name}"] = left / number
            values[f"mask_churn/{name}"] = 0.1 * left if step <= frozen_after else 0.0
        lines += [line(step, **values), line(step, "validation")]
    return lines


@pytest.fixture(scope="module")
def section():
    family = made.make_family()
    return evolution_report.section(family, made.make_subject(family, history=history))


def test_series_are_the_training_lines_by_module_in_order():
    found = evolution.series(history(), made.NAMES, evolution.ENTROPY)
    assert list(found.values) == list(made.NAMES[1:])  # the first module has no mask
    np.testing.assert_array_equal(found.steps, STEPS)
    np.testing.assert_allclose(found.epochs, np.array(STEPS) / 10)
    np.testing.assert_allclose(found.values[made.NAMES[1]], [0.9, 0.8, 0.7, 0.6, 0, 0])
    part = evolution.learning(found, 4.0)
    np.testing.assert_allclose(part.values[made.NAMES[2]], [0.45, 0.4, 0.35, 0.3])


def test_a_line_of_few_steps_joins_the_one_before():
    name = made.NAMES[1]
    rows = [
        line(step, **{f"mask_churn/{name}": value})
        for step, value in ((10, 0.4), (20, 0.2), (22, 0.8), (30, None), (40, 0.1))
    ]
    found = evolution.series(rows, made.NAMES, evolution.CHURN)
    np.testing.assert_array_equal(found.steps, [10, 22, 30, 40])
    np.testing.assert_allclose(found.values[name], [0.4, (2 + 1.6) / 12, math.nan, 0.1])
    assert evolution.turnover(found)[name] == pytest.approx(4 + 3.6 + 1)


def test_without_such_lines_there_is_nothing():
    assert evolution.series([line(3)], made.NAMES, evolution.ENTROPY) is None
    for kind, lines in (("learned", []), ("random", history()), ("ones", history())):
        family = made.make_family(**{"model.connectivity": kind})
        subject = made.make_subject(family, history=lambda lines=lines: lines)
        assert evolution_report.section(family, subject) is None


def test_phases_follow_one_another():
    found = evolution.stretches((("learn", 4.0), ("tune", 5.0), ("tune", 1.0)))
    assert [(p.mode, p.start, p.end) for p in found] == [
        ("learn", 0, 4), ("tune", 4, 9), ("tune", 9, 10),
    ]  # fmt: skip


def test_entropy_of_k_equal_inputs():
    assert evolution.equal_entropy(8, 8) == 1 and evolution.equal_entropy(1, 8) == 0
    assert evolution.equal_entropy(4, 8) == pytest.approx(2 / 3)


def test_the_section_is_about_the_phase_that_learns(section):
    merit = section.figures_of_merit
    assert merit["entropy_at_the_end"] == pytest.approx({made.NAMES[1]: 0.6, made.NAMES[2]: 0.3})
    assert merit["churn_at_the_end"] == pytest.approx(dict.fromkeys(made.NAMES[1:], 0.06))
    # Ten steps a line: 0.09, 0.08, 0.07 and 0.06 of the connections a step.
    assert merit["replacements"] == pytest.approx(dict.fromkeys(made.NAMES[1:], 3.0))
    assert "After 4 epochs" in section.text and "0.300 (stage4/block0)" in section.text
    assert "55% of the way" in section.text and "were frozen" in section.text
    json.dumps(merit, allow_nan=False)


def test_boundaries_of_phases_are_marked(section):
    for axes in section.figures[0].drawing.axes:
        marked = [one.get_xdata()[0] for one in axes.get_lines() if one.get_linestyle() == ":"]
        assert marked == [4.0]
    upper, _, lower = section.figures[0].drawing.axes
    assert upper.get_xlim()[1] < 5 and lower.get_xlim() == (0, 10)
    np.testing.assert_allclose(upper.get_lines()[0].get_xdata(), [1, 2, 3, 4])
    assert lower.get_legend_handles_labels()[1] == ["train", "validation"]


def test_many_modules_get_a_scale_of_colours():
    family = made.make_family(**{"model.depths": (5, 5, 5)})
    names = list(family.model.modules())[1:]
    rows = [
        line(step, **{f"mask_{what}/{n}": 0.5 for n in names for what in ("entropy", "churn")})
        for step in (10, 20)
    ]
    subject = made.make_subject(family, {}, history=lambda: rows)
    (figure,) = evolution_report.section(family, subject).figures
    upper, *_, scale = figure.drawing.axes
    assert upper.get_legend() is None
    assert [text.get_text() for text in scale.get_yticklabels()] == [names[0], names[-1]]

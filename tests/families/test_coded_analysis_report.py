"""The sections of a report on a coded network, and the figures that sweeps draw."""

import dataclasses
import json
from types import SimpleNamespace

import coded_subject
import numpy as np
import pytest

from branchnets import create_model
from branchnets.counting import describe
from branchnets.errors import ConfigError
from branchnets.families.coded.analysis import (
    classifier_figures,
    cost,
    early,
    energies,
    paper,
    specialisation_report,
)
from branchnets.families.coded.family import energy_on_code

SECTIONS = ("energies", "specialisation", "binary", "early", "cost")
ENDS = ("stage3_block0", "stage4_block0")


@pytest.fixture(scope="module")
def subject(family, variables):
    return coded_subject.make_subject(
        family, variables, outside=True, draws=2, timing_steps=2, timing_batch=4
    )


@pytest.fixture(scope="module")
def sections(family, subject):
    found = family.analyses()
    return {name: found[name].run(subject) for name in SECTIONS}


@pytest.fixture(scope="module")
def merits(family, subject):
    return family.merits(subject)


def test_every_figure_and_table_is_named_after_the_papers(sections):
    figures = [figure.name for section in sections.values() for figure in section.figures]
    assert figures == [
        *(f"fig1c_energies_{end}" for end in ENDS),
        "fig2a_specialisation",
        "fig2a_all_blocks",
        "fig2b_precision_recall",
        "fig3_score_distribution",
        "fig7_score_distributions",
        "fig4_early_decoding",
        "early_leaving",
    ]
    tables = {table.name for section in sections.values() for table in section.tables}
    assert tables >= {"table3_coding_schemes", "fig1c_energies", "table4_cost"}
    for section in sections.values():
        assert all(axes.get_xlabel() for axes in _shown(section.figures, last_row=True))
        assert all(len(row) == len(t.headers) for t in section.tables for row in t.rows)
        assert "nan" not in section.text
        json.dumps(section.figures_of_merit, allow_nan=False)


def _shown(figures, last_row):
    for figure in figures:
        axes = [one for one in figure.drawing.axes if one.get_subplotspec() and one.get_visible()]
        yield from (one for one in axes if not last_row or one.get_subplotspec().is_last_row())


def test_the_text_says_what_was_measured(sections):
    found = sections["specialisation"].figures_of_merit
    text = sections["specialisation"].text
    assert f"changes that by {100 * found['active_all_removed']:+.1f} points" in text
    assert "37 test images" in text and "2 independent draws" in text
    assert f"F1 {sections['binary'].figures_of_merit['f1']:.3f}" in sections["binary"].text
    assert "12.8 million" in sections["binary"].text
    assert "21 images of noise" in sections["binary"].text


@pytest.mark.parametrize(
    ("active", "inactive", "words"),
    [
        ((-0.3, -0.4, -0.2), (0.02, 0.01, 0.03), "the inactive ones disturb, as the paper found"),
        ((-0.3, -0.4, -0.2), (-0.02, -0.03, -0.01), "removing them costs 2.0 points here"),
        ((-0.3, -0.4, -0.2), (0.0, -0.01, 0.01), "does not show here"),
        ((-0.1, -0.2, 0.0), (0.0, -0.01, 0.01), "do not show to be needed"),
    ],
)
def test_a_claim_that_does_not_show_is_said_not_to(active, inactive, words):
    assert words in specialisation_report._verdict(active, inactive)


def test_the_energy_map_is_the_mean_by_class(family, subject, sections):
    images, labels = coded_subject.images_of(subject, "test")
    output = coded_subject.apply(family.model, subject.variables, images)
    maps, n = energies.energy_maps(family, subject)
    assert n == 37
    for block, scheme in family.schemes.items():
        for a in (0, 9):
            wanted = np.asarray(output.energies[block])[labels == a].mean(0)
            np.testing.assert_allclose(maps[block][a], wanted, rtol=1e-4)
        share = sections["energies"].figures_of_merit["energy_on_code"][block]
        assert share == pytest.approx(energy_on_code(maps[block], scheme.codewords))


def test_one_pass_over_the_test_images_serves_energies_and_decoders(family, subject):
    passes = []

    def track(items, title, total):
        passes.append(title)
        return items

    watched = dataclasses.replace(subject, track=track)
    maps, _ = energies.energy_maps(family, watched)
    assert early.decode(family, watched).right.shape == (37, len(maps) + 1)
    assert set(early.energies(family, watched)) == set(maps)
    assert passes == ["energies and early decoding of test images"]


def test_at_most_fifty_rows_of_an_energy_map_are_drawn():
    assert energies.sampled_rows(10).tolist() == list(range(10))
    rows = energies.sampled_rows(1000)
    assert len(rows) == 50 and rows[0] == 0 and rows[-1] == 999


def test_costs_are_counted_and_timed(family, subject, sections):
    found = sections["cost"].figures_of_merit
    plain = create_model("resnext_digits", num_classes=10)
    plain = plain.clone(stages=tuple(stage[:1] for stage in plain.stages))
    assert found["plain"]["macs"] == describe(plain, coded_subject.SHAPE).macs
    assert found["coded"]["macs"] == describe(family.model, coded_subject.SHAPE).macs
    assert found["plain"]["parameters"] == found["coded"]["parameters"]
    assert found["coded"]["throughput"] > 0 and found["coded"]["memory"] > 4 * 10_000
    table = sections["cost"].tables[0]
    assert [row[1] for row in table.rows[2:]] == [2.196, 2.269]
    untimed = cost.measure(family, subject, steps=0, batch=4)
    assert all(one.throughput is None for one in untimed)


def test_merits_are_the_sections_figures(sections, merits):
    assert all(isinstance(value, float) for value in merits.values())
    special, binary = (sections[n].figures_of_merit for n in ("specialisation", "binary"))
    early = sections["early"].figures_of_merit
    assert merits["specialisation/active"] == pytest.approx(special["active_all_removed"])
    assert merits["specialisation/inactive"] == pytest.approx(special["inactive_all_removed"])
    assert merits["binary/f1"] == pytest.approx(binary["f1"])
    assert merits["binary/average_precision"] == pytest.approx(binary["average_precision"])
    assert merits["early/last"] == early["last_block_accuracy"]
    for block, accuracy in early["early_decoding_accuracy"].items():
        assert merits[f"early/{block}"] == accuracy


def test_without_coded_blocks_only_costs_are_shown(subject):
    family = coded_subject.make_family(**{"model.active": ((10,), (10,), (10,))})
    for name, analysis in family.analyses().items():
        if name != "cost":
            assert analysis.run(subject) is None
    assert family.merits(subject) == {}


def test_without_examples_of_a_class_in_both_splits_there_is_a_sentence(family, subject):
    labels = {"train": np.array([0, 1]), "test": np.array([2, 2])}
    disjoint = dataclasses.replace(subject, examples=lambda n: SimpleNamespace(labels=labels[n]))
    section = family.analyses()["binary"].run(disjoint)
    assert "No class has examples both among the training images" in section.text
    assert not section.figures and not section.tables and not section.figures_of_merit


def test_recall_is_on_x_and_precision_on_y(family, sections):
    figure = sections["binary"].figures[0]
    (axes,) = figure.drawing.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("recall", "precision")
    assert "Recall is on x" in figure.caption
    headers, rows = sections["binary"].tables[1].headers, sections["binary"].tables[1].rows
    own, beyond = (np.asarray(points.get_offsets()) for points in axes.collections[:2])
    for points, prefix in ((own, ""), (beyond, "ood ")):
        for column, name in enumerate(("recall", "precision")):
            values = [row[headers.index(prefix + name)] for row in rows]
            np.testing.assert_allclose(points[:, column], values)


def test_what_leaving_early_saves_is_that_of_its_table(sections):
    section = sections["early"]
    (table,) = (t for t in section.tables if t.name == "early_leaving_points")
    assert table.headers[1] == "change on train"
    for row, name in zip(table.rows, ("without_loss", "for_one_point"), strict=True):
        point = dict(zip(table.headers, row, strict=True))
        assert point["change on train"] >= -point["tolerated"]
        assert section.figures_of_merit[f"macs_saved_{name}"] == point["saved"]
        assert section.figures_of_merit[f"accuracy_change_{name}"] == point["change"]


def test_bad_options(family, subject):
    for name, option in (("specialisation", "draws"), ("cost", "timing_steps")):
        wrong = dataclasses.replace(subject, options={option: -1})
        with pytest.raises(ConfigError, match=option):
            family.analyses()[name].run(wrong)


def test_the_papers_accuracy_belongs_to_its_network_and_data():
    model = create_model("coded_resnext29_10x11d_cifar10", num_classes=10)
    assert paper.final_accuracy(model, "cifar10") == 0.9441
    assert paper.final_accuracy(model, "digits") is None
    small = create_model("coded_resnext11_10x4d_cifar10", num_classes=10)
    assert paper.final_accuracy(small, "cifar10") is None


def test_names_of_one_point_are_written_together():
    from branchnets.report import style

    _, axes = style.figure()
    x, y = np.array([0.5, 0.5, np.nan]), np.array([1.0, 1.0, 0.2])
    classifier_figures._names(axes, x, y, ("cat", "dog", "none"), y)
    assert [text.get_text() for text in axes.texts] == ["cat, dog"]


def test_names_of_neighbours_do_not_overlap():
    from branchnets.report import style

    drawing, axes = style.figure(6.4, 4.8)
    x, y = np.array([0.60, 0.63, 0.61, 0.2]), np.array([0.73, 0.73, 0.75, 0.4])
    axes.scatter(x, y)
    classifier_figures._names(axes, x, y, ("ship", "truck", "automobile", "cat"), y)
    drawing.canvas.draw()
    boxes = [text.get_window_extent().extents.reshape(2, 2) for text in axes.texts]
    pairs = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i]]
    assert all(classifier_figures._overlap(a, b) == 0 for a, b in pairs)

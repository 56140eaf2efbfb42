"""The diagram: who is in it and where, what is written of it; and active branches by depth."""

import io
import json
from xml.etree import ElementTree

import jax.numpy as jnp
import maskconnect_subject as made
import numpy as np
import pytest

from branchnets.families.maskconnect.analysis import depth, depth_report, diagram
from branchnets.families.maskconnect.analysis.scene import HALF, RADIUS, layout
from branchnets.families.maskconnect.analysis.wiring import everything, wiring
from branchnets.report.write import render_files

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def family():
    return made.make_family()


@pytest.fixture(scope="module")
def found(family):
    return wiring(family, made.make_subject(family).variables)


def test_squares_are_rows_of_branches_and_hollow_where_nobody_reads(found):
    scene = layout(found)
    assert [(s.module, s.branch) for s in scene.squares] == [
        (name, j) for name in made.NAMES for j in range(4)
    ]
    hollow = {(s.module, s.branch) for s in scene.squares if not s.alive}
    # Branch 1 of stage2 is read by branch 3 of stage3 alone, which nobody reads.
    assert hollow == {("stage2/block0", 1), ("stage2/block0", 3), ("stage3/block0", 3)}
    assert [row[2:] for row in scene.rows] == [(2, 4), (3, 4), (4, 4)]
    assert [s.centre[0] for s in scene.squares[:4]] == [-1.5, -0.5, 0.5, 1.5]
    rows = [row[1] for row in scene.rows]
    assert scene.stem[1] > rows[0] > rows[1] > rows[2] > scene.head[1]


def test_edges_lead_from_what_is_read_to_what_reads(found):
    scene = layout(found)
    assert [b.module for b in scene.bundles] == [*made.NAMES, "head"]
    bundle = scene.bundles[1]
    centre = {(s.module, s.branch): np.array(s.centre) for s in scene.squares}
    for start, end, alive, (reader, read) in zip(
        bundle.starts, bundle.ends, bundle.alive, enumerate((0, 2, 2, 1)), strict=True
    ):
        np.testing.assert_allclose(start, centre["stage2/block0", read] - [0, HALF])
        np.testing.assert_allclose(end, centre["stage3/block0", reader] + [0, HALF])
        assert alive == (reader != 3)
    np.testing.assert_array_equal(scene.bundles[0].starts[:, 1], scene.stem[1] - RADIUS)
    np.testing.assert_array_equal(scene.bundles[0].alive, [True, False, True, False])
    np.testing.assert_array_equal(scene.bundles[-1].ends[:, 1], scene.head[1] + RADIUS)
    assert all(scene.bundles[-1].alive)


def test_the_full_connectivity_has_every_edge(family):
    scene = layout(everything(family.model.modules()))
    assert [len(b.weights) for b in scene.bundles] == [4, 16, 16, 4]
    assert all(square.alive for square in scene.squares)


def test_real_masks_are_weights_of_edges_and_nothing_is_rounded():
    family = made.make_family(**{"model.connectivity": "real"})
    masks = {
        "stage3/block0": jnp.array([[0.5, 0.5, 0, 0]] * 4),
        "stage4/block0": jnp.array([[0.2, 0.2, 0.2, 0.4]] * 4),
    }
    found = wiring(family, {"masks": masks})
    assert found.state == "real"
    scene = layout(found)
    np.testing.assert_allclose(scene.bundles[1].weights, 1.0)
    np.testing.assert_allclose(np.unique(scene.bundles[2].weights), [0.4, 0.8], rtol=1e-6)
    assert [row[2] for row in scene.rows] == [2, 4, 4]  # the other two have no weight at all
    section = diagram.section(family, made.make_subject(family, masks))
    assert "real-valued" in section.text and section.tables == ()


def test_masks_that_are_learned_are_shown_by_their_largest_entries(family):
    rows = jnp.array([[0.4, 0.3, 0.2, 0.1]] * 4)
    found = wiring(family, {"masks": {name: rows for name in made.READS}})
    assert found.state == "learning"
    np.testing.assert_array_equal(found.weights["stage3/block0"], [[1, 0, 0, 0]] * 4)
    section = diagram.section(family, made.make_subject(family, dict.fromkeys(made.READS, rows)))
    assert "still being learned" in section.text
    assert "nothing can be taken out yet" in section.text


@pytest.mark.parametrize(("kind", "state"), [("random", "fixed"), ("ones", "fixed")])
def test_fixed_connections_are_told(kind, state):
    family = made.make_family(**{"model.connectivity": kind})
    masks = {name: jnp.ones((4, 4)) for name in made.READS} if kind == "ones" else None
    subject = made.make_subject(family, masks)
    assert wiring(family, subject.variables).state == state
    assert "not been learned" in diagram.section(family, subject).text


def test_a_true_resnext_has_no_connections_to_show():
    family = made.make_family(**{"model.connectivity": "full"})
    subject = made.make_subject(family)
    sections = {name: a.run(subject) for name, a in family.analyses().items()}
    assert list(sections) == ["connectivity", "branches", "evolution", "comparison"]
    assert all(section is None for section in sections.values())


def test_the_section_says_and_lists_what_is_drawn(family):
    section = diagram.section(family, made.make_subject(family))
    assert section.figures_of_merit == {
        "state": "frozen", "branches": 12, "active_branches": 9, "connections": 8,
    }  # fmt: skip
    assert "Of 12 branches 9 (75%) reach the output" in section.text
    rows = section.tables[0].rows
    assert rows[1] == ("stage2/block0", 1, "stem", 1, "no")
    assert rows[6] == ("stage3/block0", 2, "2", 1, "yes")
    assert rows[-1] == ("stage4/block0", 3, "2", None, "yes")


def test_the_svg_has_every_square_once(family):
    section = diagram.section(family, made.make_subject(family))
    files = render_files("A run", [section], {})
    tree = ElementTree.fromstring(files["fig3_connectivity.svg"])
    ids = [element.get("id", "") for element in tree.iter(f"{SVG}g")]
    own = [name for name in ids if name.startswith("branch:")]
    assert sorted(own) == sorted(f"branch:{name}:{j}" for name in made.NAMES for j in range(4))
    assert sum(name.startswith("full:") for name in ids) == 12
    styles = {
        element.get("id"): next(element.iter(f"{SVG}path")).get("style")
        for element in tree.iter(f"{SVG}g")
        if element.get("id", "").startswith("branch:")
    }
    hollow = {name for name, style in styles.items() if "fill: #ffffff" in style}
    assert hollow == {"branch:stage2/block0:1", "branch:stage2/block0:3", "branch:stage3/block0:3"}
    assert files["fig3_connectivity.png"].startswith(b"\x89PNG")


def test_wide_networks_are_drawn_alone():
    family = made.make_family(**{"model.branches": 20, "model.fan_in": 10})
    reads = np.eye(20)[np.arange(20)[:, None] - np.arange(10)].sum(1)
    subject = made.make_subject(family, {name: jnp.asarray(reads) for name in made.READS})
    (figure,) = diagram.section(family, subject).figures
    assert len(figure.drawing.axes) == 1 and "Beside" not in figure.caption
    figure.drawing.savefig(io.BytesIO(), format="png", dpi=40)


def test_parts_before_and_after_pruning_add_up(family, found):
    parts = depth.parts(family.model, found, made.SHAPE)
    by_name = {part.name: part for part in parts}
    first = by_name["stage2/block0"]
    assert (first.branches, first.active) == (4, 2)
    # The shared projection of the other stages stays; the first module of digits has none.
    assert first.parameters[1] * 2 == first.parameters[0]
    assert by_name["stage4/block0"].parameters[0] == by_name["stage4/block0"].parameters[1]
    section = depth_report.section(family, made.make_subject(family))
    merit = section.figures_of_merit
    assert merit["active_branches"] == dict(zip(made.NAMES, (2, 3, 4), strict=True))
    assert merit["active_share"] == 0.75
    for what in ("parameters", "macs"):
        assert merit[what] == sum(getattr(part, what)[0] for part in parts)
        assert merit[f"{what}_after_pruning"] == sum(getattr(part, what)[1] for part in parts)
    total = section.tables[0].rows[-1]
    assert total[:5] == ("total", 12, 9, merit["parameters"], merit["parameters_after_pruning"])
    assert section.figures[0].name == "fig4_active_branches"
    json.dumps(merit, allow_nan=False)


def test_what_pruning_leaves_is_in_the_summary(family):
    metrics = {f"connections/{n}": made.one_hot(reads) for n, reads in made.READS.items()}
    figures, _ = family.summary(metrics)
    section = depth_report.section(family, made.make_subject(family))
    for name in ("active_share", "parameters_after_pruning", "macs_after_pruning"):
        assert figures[name] == section.figures_of_merit[name]


def test_chance_is_that_of_random_inputs():
    drawn = depth.chance({"a": 3, "b": 3, "c": 2}, 1, 4000, seed=0)
    assert (drawn[:, 2] == 2).all()
    # Two readers of three branches choose the same one in a third of the cases.
    assert abs((drawn[:, 1] == 1).mean() - 1 / 3) < 0.03
    both = drawn[drawn[:, 1] == 2]
    assert abs((both[:, 0] == 1).mean() - 1 / 3) < 0.03
    assert (depth.chance({"a": 3, "b": 3}, 3, 5, seed=1) == 3).all()


def test_what_is_learned_is_compared_with_chance(family):
    assert "by chance too" in depth_report.section(family, made.make_subject(family)).text
    lonely = {name: made.one_hot((0, 0, 0, 0)) for name in made.READS}
    text = depth_report.section(family, made.make_subject(family, lonely)).text
    assert "of these networks leave as few as were learned" in text


def test_runs_beside_are_lines_of_the_figure(family):
    figures = {f"active_branches/{name}": n for name, n in zip(made.NAMES, (1, 2, 4), strict=True)}
    small = dict(model__name="maskconnect_digits", data__name="digits", model__branches=4,
                 model__depths=(1, 1, 1), model__fan_in=1)  # fmt: skip
    runs = tuple(made.finished(0.9, seed, figures, **small) for seed in (0, 1))
    other = made.finished(0.9, 0, figures, model__name="maskconnect_digits")  # other sizes
    section = depth_report.section(family, made.make_subject(family, others=(*runs, other)))
    labels = section.figures[0].drawing.axes[0].get_legend_handles_labels()[1]
    assert "learned, K = 1, sum (2 runs)" in labels and len(labels) == 4

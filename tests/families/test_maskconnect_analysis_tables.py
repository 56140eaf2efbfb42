"""Tables of finished runs: what shares a row, best and mean and deviation, the paper's numbers."""

import fnmatch
import json

import maskconnect_subject as made
import pytest

from branchnets import list_models
from branchnets.data.registry import DATASETS
from branchnets.families.maskconnect import MaskConnectFamily, ablations, paper
from branchnets.families.maskconnect.analysis import comparison
from branchnets.families.maskconnect.analysis.groups import Spread, group
from branchnets.families.study import FinishedRun

FULL = dict(model__connectivity="full")
PRUNED = {"parameters_after_pruning": 600_000, "active_branches/stage2/block0": 3,
          "active_branches/stage2/block1": 8}  # fmt: skip


def runs_of(values, figures=None, **overrides):
    return [made.finished(v, seed, figures, **overrides) for seed, v in enumerate(values)]


@pytest.fixture(scope="module")
def runs():
    return [
        *runs_of((0.70, 0.72, 0.74), PRUNED, model__fan_in=1),
        *runs_of((0.73, 0.71), **FULL),
        *runs_of((0.75,), PRUNED, model__fan_in=4, model__aggregate="mean"),
        *runs_of((0.3, 0.4), PRUNED, model__fan_in=4, epochs=8),
        *runs_of((0.9,), data__train_size=1000, **FULL),
        *runs_of((0.8,), model__connectivity="real"),
        *runs_of((0.8,), model__connectivity="ones", data__name="cifar10"),
    ]


def rows(table):
    return [dict(zip(table.headers, row, strict=True)) for row in table.rows]


def test_runs_that_differ_in_the_seed_alone_are_a_group(runs):
    groups = group(runs)
    assert [len(one.runs) for one in groups] == [3, 2, 1, 2, 1, 1, 1]
    elsewhere = made.finished(0.5, 7, PRUNED, model__fan_in=1, data__data_dir="D",
                              eval__every_epochs=3)  # fmt: skip
    again = made.finished(0.1, 2, PRUNED, model__fan_in=1)  # a seed that is there already
    first = group([*runs, elsewhere, again])[0]
    assert first.seeds == (0, 1, 2, 7)
    assert first.spread("test_accuracy").mean == pytest.approx((0.70 + 0.72 + 0.74 + 0.5) / 4)


def test_best_mean_and_sample_deviation(runs):
    spread = group(runs)[0].spread("test_accuracy")
    assert (spread.best, spread.runs) == (0.74, 3)
    assert spread.mean == pytest.approx(0.72) and spread.std == pytest.approx(0.02)
    assert spread.text(100) == "74.00 (72.00 ± 2.00)"
    assert Spread(0.5, 0.5, None, 1).text(100) == "50.00"
    assert group(runs)[0].spread("no such figure") is None


def test_table_1_has_ours_beside_the_papers(runs):
    table = comparison.printed_table(paper.TABLE_1, group(runs))
    found = [row for row in rows(table) if row["{D,w,C}"] == "{29,8,8}"]
    full, learned1, short, mean, random = found
    assert (full["connectivity"], full["runs"]) == ("Fixed-Full, K = 8", 2)
    assert full["top-1 (%)"] == "73.00 (72.00 ± 1.41)"
    assert full["paper top-1"] == "73.52 (73.37 ± 0.13)"
    assert full["train (M)"] == full["test (M)"] == pytest.approx(0.858292)
    assert learned1["top-1 (%)"] == "74.00 (72.00 ± 2.00)"
    assert (learned1["test (M)"], learned1["paper test"]) == (pytest.approx(0.6), 0.65)
    # Two recipes of one cell: neither is averaged with the other.
    assert {mean["epochs"], short["epochs"]} == {320, 8}
    assert {mean["aggregate"], short["aggregate"]} == {"sum", "mean"}
    assert random["connectivity"] == "Fixed-Random, K = 4"
    assert random["top-1 (%)"] is None and random["runs"] is None and random["train (M)"] is None
    assert random["paper top-1"] == "72.85 (72.66 ± 0.24)"


def test_only_whole_networks_and_data_count(runs):
    table = paper.TABLE_1
    row = table.rows[0]
    for changed in (
        dict(data__train_size=10), dict(model__depths=(1, 1, 1)), dict(model__width=4),
        dict(data__name="cifar10"), dict(model__name="maskconnect29_w64_c8"),
        dict(data__image_size=16), dict(data__label="coarse"), dict(data__validation_size=5000),
        dict(data__crop_size=24),
    ):  # fmt: skip
        (one,) = group([made.finished(0.9, **{**FULL, **changed})])
        assert not comparison.fills(one, row, table)
    (one,) = group([made.finished(0.9, **FULL)])
    assert comparison.fills(one, row, table)


def test_mini_imagenet_counts_in_crops_of_the_papers_size():
    table = paper.TABLE_4
    row = table.rows[4]
    for crop, counts in ((64, True), (None, False), (80, False)):
        run = made.finished(
            0.7, model__name=row.model, data__name="mini_imagenet", model__fan_in=4,
            data__crop_size=crop,
        )  # fmt: skip
        assert comparison.fills(*group([run]), row, table) == counts


def test_rows_of_other_recipes_say_in_what_they_differ(runs):
    table = comparison.printed_table(paper.TABLE_1, group(runs))
    assert "differing" not in table.headers  # but for aggregate and epochs, which have columns
    other = runs_of((0.6,), PRUNED, model__fan_in=4, optimizer__grad_clip=1.0)
    found = rows(comparison.printed_table(paper.TABLE_1, group([*runs, *other])))
    said = {row["differing"] for row in found}
    assert said == {None, "optimizer.grad_clip=None", "optimizer.grad_clip=1.0"}
    assert [row["runs"] for row in found if row["differing"] and "1.0" in row["differing"]] == [1]


def test_table_2_has_top_5():
    run = made.finished(
        0.77, 0, {"test/top5_accuracy": 0.93}, model__name="maskconnect50_w4_c32",
        data__name="imagenet2012", model__fan_in=16,
    )  # fmt: skip
    found = rows(comparison.printed_table(paper.TABLE_2, group([run])))
    assert (found[1]["top-1 (%)"], found[1]["top-5 (%)"]) == ("77.00", "93.00")
    assert (found[1]["paper top-1"], found[1]["paper top-5"]) == ("79.1", "94.1")
    # Without K in its config, a network has its builder's: half of the branches.
    default = made.finished(0.5, model__name="maskconnect50_w4_c32", data__name="imagenet2012")
    assert group([default])[0].fan_in == 16


def test_all_runs_are_listed_with_what_sets_them_apart(runs):
    plain = FinishedRun(
        "plain",
        {"family": "plain", "model.name": "resnext_digits", "data.name": "digits", "epochs": 3,
         "seed": 5},
        {"test_accuracy": 0.98},
    )  # fmt: skip
    found = rows(comparison.runs_table(group([*runs, plain])))
    assert len(found) == 8
    first = found[0]
    assert (first["connectivity"], first["K"], first["aggregate"]) == ("learned", 1, "sum")
    assert first["accuracy (%)"] == "74.00 (72.00 ± 2.00)" and first["seeds"] == "0, 1, 2"
    assert (first["active"], first["of"]) == (11, 72)
    assert (found[1]["K"], found[1]["aggregate"], found[1]["active"]) == (8, None, None)
    assert "data.train_size=1000" in found[4]["differing"]
    assert found[5]["K"] is None and found[5]["pruned (M)"] == found[5]["trained (M)"]
    assert found[6]["K"] == 8  # all masks one
    last = found[-1]
    assert (last["model"], last["connectivity"], last["{D,w,C}"]) == ("resnext_digits", None, None)
    assert (last["accuracy (%)"], last["trained (M)"]) == ("98.00", None)


def test_the_section_compares_with_the_full_connectivity(runs):
    family = made.make_family()
    assert comparison.section(family, made.make_subject(family)) is None
    section = comparison.section(family, made.make_subject(family, others=tuple(runs)))
    assert [table.name for table in section.tables] == [
        "runs_compared", "table1_cifar100", "table2_imagenet", "table3_cifar10",
        "table4_miniimagenet",
    ]  # fmt: skip
    assert "11 finished runs of 7 configs" in section.text
    assert "learned, K = 1, sum (maskconnect29_w8_c8) is 0.00 points above" in section.text
    assert "standard error of 1.53 from 3 and 2 runs" in section.text
    assert "learned, K = 4, mean (maskconnect29_w8_c8) is 3.00 points above" in section.text
    assert "too few runs" in section.text
    # The short runs, the other data set and the part of the training images have no partner.
    assert section.text.count("the full connectivity of a ResNeXt") == 3
    merit = section.figures_of_merit
    assert len(merit) == 1 + 7 and merit["runs"] == 11
    key = "maskconnect29_w8_c8 on cifar100, full"
    assert merit[key]["mean"] == pytest.approx(0.72) and f"{key} (2)" in merit
    json.dumps(merit, allow_nan=False)


def test_only_runs_of_one_recipe_are_compared(runs):
    """All but the connections, the seed and what is only watched must be the same."""
    family, full = made.make_family(), runs[3:5]

    def sentences(**changed):
        others = (*full, *runs_of((0.75, 0.77), PRUNED, model__fan_in=4, **changed))
        return comparison.section(family, made.make_subject(family, others=others)).text

    plan = (("learn", 300.0), ("tune", 20.0))
    for same in ({}, dict(maskconnect__phases=plan), dict(eval__every_epochs=7)):
        assert "4.00 points above the full connectivity" in sentences(**same)
    for changed in (
        dict(optimizer__learning_rate=0.5), dict(optimizer__grad_clip=1.0), dict(epochs=8),
        dict(augment__flip=True), dict(batch_size=32), dict(dtype="bfloat16"),
    ):  # fmt: skip
        assert "the full connectivity" not in sentences(**changed)


def test_the_papers_numbers():
    assert {row.model for table in paper.TABLES for row in table.rows} <= set(
        list_models("maskconnect*")
    )
    assert [len(table.rows) for table in paper.TABLES] == [8, 6, 8, 6]
    assert {table.dataset for table in paper.TABLES} <= set(DATASETS)
    for table in paper.TABLES:
        for row in table.rows:
            assert row.top1.mean is None or row.top1.mean < row.top1.best
            assert (row.test or 0) <= (row.train or 0)
    by_point = {
        (r.model, r.dataset, r.figure, r.fields.get("model.connectivity"),
         r.fields.get("model.fan_in")): r.value
        for r in ablations.REFERENCES
    }  # fmt: skip
    assert len(by_point) == len(ablations.REFERENCES)
    name = "maskconnect29_w8_c8"
    assert by_point[name, "cifar100", "test_accuracy", "learned", 4] == 0.7577
    assert by_point[name, "cifar100", "test_accuracy", None, None] == 0.7337
    assert by_point[name, "cifar100", "parameters_after_pruning", "learned", 1] == 0.65e6
    assert by_point["maskconnect20_w4_c8", "cifar10", "test_accuracy", "learned", 4] == 0.9276
    assert by_point["maskconnect50_w4_c32", "imagenet2012", "test_accuracy", "learned", 16] == 0.791
    shown = {pattern for panel in MaskConnectFamily.panels for pattern in panel.figures}
    assert all(any(fnmatch.fnmatch(r.figure, p) for p in shown) for r in ablations.REFERENCES)

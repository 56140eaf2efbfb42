"""The slim hook: thresholds, scores, sizes and bad requests."""

import dataclasses

import jax
import numpy as np
import pytest
from coded_subject import SIZES, make_family, make_split, make_subject, make_variables

from branchnets.errors import ConfigError, DataError
from branchnets.families.coded import binary, negatives, slim
from branchnets.families.coded.extract import Chosen, class_indices


@pytest.fixture(scope="module")
def net():
    family = make_family()
    return family, make_subject(family, make_variables(family.model))


def masked_scores(family, subject, split, classes):
    keep = slim.keep_of(family.schemes, classes)

    def score(variables, batch):
        masks = slim.masks_of(keep, family.model, len(batch["image"]))
        return family.model.apply(variables, batch["image"], remove=masks).logits

    return subject.map(score, split, "")[:, list(classes)]


@pytest.mark.parametrize("classes", [("c",), ("g", 1)])
def test_threshold_and_scores_are_those_of_the_masked_network(net, classes):
    family, subject = net
    slimmed = family.slim(subject, classes=classes)
    chosen = class_indices(classes, family.class_names)
    assert slimmed.outputs == tuple(family.class_names[k] for k in chosen)
    assert slimmed.model.num_classes == len(chosen)
    train, test = make_split("train"), make_split("test")
    for i, k in enumerate(chosen):
        on_train = masked_scores(family, subject, "train", chosen)[:, i]
        on_test = masked_scores(family, subject, "test", chosen)[:, i]
        own, other = on_train[train.labels == k], on_train[train.labels != k]
        mine, rest = on_test[test.labels == k], on_test[test.labels != k]
        weight = len(rest) / len(mine) * len(own) / len(other)
        threshold = binary.best_threshold(own, other, weight)
        assert slimmed.thresholds[i] == pytest.approx(threshold, rel=1e-5, abs=1e-5)
        found = slimmed.record["scores"][family.class_names[k]]
        assert (found["positives"], found["negatives"]) == (len(mine), len(rest))
        expected = binary.scores_at(threshold, mine, rest)
        assert {m: found[m] for m in expected} == pytest.approx(expected)


def test_record_and_text(net):
    family, subject = net
    slimmed = family.slim(subject, classes=("a",))
    record = slimmed.record
    held = sum(x.size for x in jax.tree.leaves(slimmed.variables["params"]))
    assert record["parameters"] == held < record["parent_parameters"]
    assert record["macs"] < record["parent_macs"]
    for count in record["paper_counting"].values():
        assert count["this"] / count["parent"] == count["ratio"] < 1
    times = record["latency"]["milliseconds"]
    assert {k: sorted(v) for k, v in times.items()} == {"this": ["1", "32"], "parent": ["1", "32"]}
    assert all(t > 0 for network in times.values() for t in network.values())
    assert f"{record['parameters']:,}" in slimmed.text and "threshold" in slimmed.text
    kept = [len(b) for b in record["branches"].values()]
    assert kept == [s.branches for s in slimmed.model.coded_blocks().values()] == [5, 3]
    assert all(x.dtype == np.float32 for x in jax.tree.leaves(slimmed.variables))


def test_drawn_negatives_are_seeded_and_weighted(net):
    family, subject = net
    slimmed = family.slim(subject, classes=(2,), negatives="2")
    train, test = make_split("train"), make_split("test")
    (drawn,) = negatives.draw(train.labels, (2,), 2, subject.seed)
    own = np.flatnonzero(train.labels == 2)
    assert len(drawn) == 2 * len(own) and not np.isin(drawn, own).any()
    on_train = masked_scores(family, subject, "train", [2])[:, 0]
    ratio = np.sum(test.labels != 2) / np.sum(test.labels == 2)
    threshold = binary.best_threshold(on_train[own], on_train[drawn], ratio / 2)
    assert slimmed.thresholds[0] == pytest.approx(threshold, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("indices", [[0], [3, 20, 21, 22, 59], list(range(1, 40)), range(60)])
def test_chosen_examples(net, indices):
    _, subject = net
    indices = np.asarray(indices)
    chosen = Chosen(subject.examples("train"), indices)
    found = subject.map(lambda v, b: (b["image"], b["label"]), chosen, "")
    everything = subject.map(lambda v, b: (b["image"], b["label"]), "train", "")
    assert (found[0] == everything[0][indices]).all() and (found[1] == everything[1][indices]).all()
    assert (chosen.labels == found[1]).all() and chosen.labels.dtype == np.int32
    batches = list(chosen)
    assert len(batches) == len(chosen)
    assert {len(b["mask"]) for b in batches} == {16}


def test_on_several_devices(net):
    family, one = net
    eight = make_subject(family, jax.device_get(one.variables), devices=8)
    a, b = (family.slim(s, classes=("d",), negatives="3") for s in (one, eight))
    assert a.thresholds == pytest.approx(b.thresholds, rel=1e-5, abs=1e-5)
    assert a.record["scores"]["d"] == pytest.approx(b.record["scores"]["d"])


def test_class_names_and_indices():
    names = ("5", "cat", "dog")
    assert class_indices(["cat", "5"], names) == (1, 0)  # a name comes before an index
    assert class_indices([2, "1"], names) == (2, 1)
    many = [f"class {i}" for i in range(100)]
    with pytest.raises(ConfigError, match=r"Near ones: class 12\b.*0 to 99"):
        class_indices(["clas 12"], many)
    with pytest.raises(ConfigError, match="Did you mean 'cat'"):
        class_indices(["cta"], names)
    for bad in ("3", "-1", "airplane"):
        with pytest.raises(ConfigError, match=f"unknown class '{bad}'.*cat, dog"):
            class_indices([bad], names)
    with pytest.raises(ConfigError, match="'cat' is given twice"):
        class_indices(["cat", 1], names)
    with pytest.raises(ConfigError, match="--class"):
        class_indices([], names)


def test_bad_requests(net):
    family, subject = net
    with pytest.raises(ConfigError, match="cannot be slimmed"):
        make_family(**{"model.aggregate": "concat"}).slim(subject, classes=("a",))
    with pytest.raises(ConfigError, match="negatives is all or a whole number from 1, not 'few'"):
        family.slim(subject, classes=("a",), negatives="few")
    with pytest.raises(ConfigError, match="Did you mean 'classes'"):
        family.slim(subject, classs=("a",))

    def relabelled(name):
        return [{**b, "label": b["label"] * 0 + 1} for b in subject.examples(name)]

    class Only:
        num_examples, batch_size = SIZES["test"], 16
        labels = np.ones(SIZES["test"], np.int32)

        def __iter__(self):
            return iter(relabelled("test"))

        def __len__(self):
            return 3

    with pytest.raises(DataError, match="positives"):
        family.slim(dataclasses.replace(subject, examples=lambda name: Only()), classes=("a",))

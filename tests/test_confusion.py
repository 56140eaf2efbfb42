"""Which class is taken for which: counted by evaluation, and told in tables and words."""

import dataclasses

import flax.linen as nn
import flax.struct
import jax
import numpy as np
import pytest

from branchnets import confusion, data
from branchnets.data.device.resident import EvalInput
from branchnets.engine import mesh as meshes
from branchnets.engine.evaluate import Evaluator
from branchnets.families import base, objectives

# Four classes; the last has no examples.
MATRIX = np.array([[8, 2, 0, 0], [0, 5, 0, 0], [1, 3, 0, 0], [0, 0, 0, 0]])
NAMES = ("ant", "bee", "cat", "dog")


@flax.struct.dataclass
class Output:
    logits: jax.Array


class Pixels(nn.Module):
    """Its logits are the pixels of the first row."""

    @nn.compact
    def __call__(self, images, train=False):
        self.param("unused", nn.initializers.zeros, (1,))
        return Output(images[:, 0, :, 0])


@dataclasses.dataclass(frozen=True)
class TwoModes(base.Family):
    """Evaluated as it is, and with the classes in reverse."""

    def eval_modes(self):
        def mode(turn):
            def run(variables, extra, batch, key):
                logits = self.model.apply(variables, batch["image"]).logits
                return objectives.evaluation_metrics(logits[:, ::-1] if turn else logits, batch)

            return run

        return {"": mode(False), "turned": mode(True)}


@pytest.mark.parametrize(("devices", "batch_size"), [(1, 5), (8, 8)])
def test_every_example_counts_once_in_every_mode(devices, batch_size):
    random = np.random.default_rng(0)
    images = random.integers(0, 3, (13, 4, 4, 1)).astype(np.uint8)  # with equal logits
    labels = random.integers(0, 3, 13).astype(np.int32)
    split = data.Split(images, labels)
    dataset = data.Dataset("fake", NAMES, {"test": split}, (0.5,), (0.25,))
    mesh = meshes.make_mesh(jax.devices()[:devices])
    family = TwoModes(Pixels())
    variables = jax.device_put(
        {"params": {"unused": np.zeros(1, np.float32)}}, meshes.replicated(mesh)
    )
    batches = EvalInput(split, dataset, batch_size, mesh)
    metrics = Evaluator(family, 0)(variables, {}, batches)
    found = confusion.matrices(metrics)
    assert set(found) == {"", "turned"}
    for mode, turn in (("", 1), ("turned", -1)):
        wanted = np.zeros((4, 4), int)
        for image, label in zip(images, labels, strict=True):
            wanted[label, np.argmax(image[0, ::turn, 0])] += 1
        np.testing.assert_array_equal(found[mode], wanted)
        name = f"{mode}/accuracy" if mode else "accuracy"
        assert metrics[name] == pytest.approx(np.trace(wanted) / 13)
    assert "cross_entropy" in confusion.without(metrics)
    assert not any("confusion" in name for name in confusion.without(metrics))


def test_classes_and_pairs_by_hand():
    count, accuracy = confusion.per_class(MATRIX)
    assert count.tolist() == [10, 5, 4, 0]
    np.testing.assert_allclose(accuracy, [0.8, 1, 0, np.nan])
    assert [(p.label, p.answer, p.count, p.share) for p in confusion.pairs(MATRIX)] == [
        (2, 1, 3, 0.75),
        (0, 1, 2, 0.2),
        (2, 0, 1, 0.25),
    ]


def test_tables_have_every_class_and_every_mode():
    turned = MATRIX[:, ::-1]
    table = confusion.class_table({"": MATRIX, "turned": turned}, NAMES, "per_class", "test")
    assert table.headers == ("class", "images", "accuracy", "from", "to", "accuracy, turned")
    assert table.rows[0][:3] == ("ant", 10, 0.8) and table.rows[0][3] < 0.8 < table.rows[0][4]
    assert table.rows[3] == ("dog", 0, None, None, None, None)
    assert table.rows[2][5] == 0.75  # cats, whose answers "bee" are now "cat"
    counts = confusion.count_table(MATRIX, NAMES, "confusion")
    assert counts.headers == ("class", *NAMES) and counts.rows[2] == ("cat", 1, 3, 0, 0)


def test_the_words_name_the_worst_classes_and_pairs():
    assert confusion.words(MATRIX, NAMES, most=2).splitlines() == [
        "Classes with the lowest accuracy:",
        "  cat    0.00% of 4 images",
        "  ant   80.00% of 10 images",
        "Most frequent confusions:",
        "  cat taken for bee: 3 of 4 images",
        "  ant taken for bee: 2 of 10 images",
    ]
    assert confusion.words(np.diag([3, 0]), NAMES) == "Every image is given its class."

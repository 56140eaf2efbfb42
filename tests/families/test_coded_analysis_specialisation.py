"""Removing branches: against one image at a time, for any batch size and device count."""

import coded_subject
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from branchnets.families.base import purpose_key
from branchnets.families.coded.analysis import specialisation
from branchnets.families.coded.analysis.parts import paper_block
from branchnets.families.coded.analysis.specialisation import ACTIVE, INACTIVE

BLOCK = "stage3/block0"


@pytest.fixture(scope="module")
def cells(family):
    return specialisation.measurements(family.schemes[BLOCK], draws=2)


@pytest.fixture(scope="module")
def removal(family, variables, cells):
    subject = coded_subject.make_subject(family, variables)
    return specialisation.remove(family, subject, BLOCK, cells)


def test_what_is_measured(cells):
    assert cells[:3] == [(ACTIVE, 1, 0), (ACTIVE, 1, 1), (ACTIVE, 2, 0)]
    # There is one way to remove all five.
    assert [c for c in cells if c[1] == 5] == [(ACTIVE, 5, 0), (INACTIVE, 5, 0)]
    assert len(cells) == 2 * (4 * 2 + 1)


def test_without_removal_it_is_plain_accuracy(family, variables, removal):
    subject = coded_subject.make_subject(family, variables)
    images, labels = coded_subject.images_of(subject, "test")
    right = coded_subject.apply(family.model, variables, images).logits.argmax(-1) == labels
    np.testing.assert_array_equal(removal.intact, right)
    for kind in (ACTIVE, INACTIVE):
        ks, means, spreads = removal.curve(kind)
        assert ks.tolist() == [0, 1, 2, 3, 4, 5]
        assert means[0] == right.mean() and spreads[0] == 0


def test_every_entry_is_that_of_one_image_with_its_own_mask(family, variables, cells, removal):
    subject = coded_subject.make_subject(family, variables)
    images, labels = coded_subject.images_of(subject, "test")
    words = family.schemes[BLOCK].codewords
    key = purpose_key(jax.random.key(subject.seed), f"specialisation/{BLOCK}")
    run = jax.jit(lambda x, kept: family.model.apply(variables, x, remove={BLOCK: kept}).logits)
    for column in (0, 3, 8, 12, 17):
        kind, k, draw = cells[column]
        digit = specialisation.DIGIT[kind]
        mine = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, digit), k), draw)
        for i in (0, 5, 20, 36):
            lots = np.array(jax.random.uniform(jax.random.fold_in(mine, i), (10,)))
            candidates = np.flatnonzero(words[labels[i]] == digit)
            gone = candidates[np.argsort(lots[candidates])][:k]
            kept = jnp.ones((1, 10)).at[0, gone].set(0)
            logits = run(images[i : i + 1], kept)
            assert (logits.argmax() == labels[i]) == removal.right[i, column]


@pytest.mark.parametrize(("batch_size", "devices"), [(7, 1), (40, 1), (16, 8)])
def test_neither_batch_size_nor_devices_matter(
    family, variables, cells, removal, batch_size, devices
):
    subject = coded_subject.make_subject(family, variables, batch_size, devices)
    again = specialisation.remove(family, subject, BLOCK, cells)
    np.testing.assert_array_equal(again.right, removal.right)
    np.testing.assert_array_equal(again.intact, removal.intact)


def test_masks_take_k_of_the_members_and_differ_between_images():
    members = jnp.tile(jnp.array([1.0, 0, 1, 1, 0, 1]), (50, 1))
    for k in range(5):
        kept = specialisation.draw_masks(jax.random.key(0), jnp.arange(50), members, k)
        assert (np.asarray(kept)[:, [1, 4]] == 1).all()
        np.testing.assert_array_equal(6 - np.asarray(kept).sum(1), k)
    two = specialisation.draw_masks(jax.random.key(0), jnp.arange(600), jnp.ones((600, 4)), 2)
    drawn, times = np.unique(np.asarray(two), axis=0, return_counts=True)
    assert len(drawn) == 6 and (times > 60).all()  # of 100 expected each


def test_the_papers_blocks(family):
    assert paper_block(family.model) == "stage3/block0"
    other = coded_subject.make_family(**{"model.active": ((10,), (5, 5, 5), (3, 3))})
    assert paper_block(other.model) == "stage3/block2"
    late = coded_subject.make_family(**{"model.active": ((10,), (10,), (3, 3))})
    assert paper_block(late.model) == "stage4/block1"


def test_imagenet_uses_the_second_block_of_c5():
    from branchnets import create_model

    model = create_model("coded_resnext50_32x4d_imagenet", num_classes=1000)
    assert paper_block(model) == "stage5/block1"

"""Slimmed networks compute what the masked full one does, with the counts the paper gives."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import branchnets
from branchnets.counting import count_parameters, describe
from branchnets.errors import ConfigError
from branchnets.families.coded import slim
from branchnets.families.coded.family import block_schemes
from branchnets.families.coded.zoo import BUILDERS

C10 = "coded_resnext29_10x11d_cifar10"
C100 = "coded_resnext29_20x6d_cifar100"
IMAGENET = "coded_resnext50_32x4d_imagenet"
DIGITS = "coded_resnext_digits"


def schemes_of(name, model):
    return block_schemes(model, BUILDERS[name].active, model.num_classes)


def random_variables(model, shape, seed=0):
    """Random weights *and* statistics: every block and every number of it matters."""
    variables = jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, *shape)))
    random = np.random.default_rng(seed)

    def draw(path, leaf):
        name = str(path[-1].key)
        if name == "kernel":
            return leaf
        spread = random.uniform(0.5, 1.5, leaf.shape)
        value = spread if name in ("scale", "var") else 0.3 * random.standard_normal(leaf.shape)
        return jnp.asarray(value, jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, variables)


@functools.partial(jax.jit, static_argnums=0)
def apply(model, variables, images, remove=None):
    return model.apply(variables, images, remove=remove).logits


def scores(model, schemes, variables, images, classes):
    """(slimmed, masked full network), [B, outputs] each, and the largest logit of the latter."""
    keep = slim.keep_of(schemes, classes)
    small = slim.slim_model(model, keep, classes)
    weights = slim.slim_variables(model, variables, keep, classes)
    masks = slim.masks_of(keep, model, len(images))
    full = apply(model, variables, images, masks)
    ours = apply(small, weights, images)
    assert ours.shape == (len(images), len(classes)) and ours.dtype == jnp.float32
    return np.asarray(ours), np.asarray(full[:, np.asarray(classes)]), float(jnp.abs(full).max())


def check_equal(model, schemes, variables, images, classes, tolerance=1e-5):
    ours, theirs, largest = scores(model, schemes, variables, images, classes)
    assert np.ptp(theirs) > 1e-3 * largest  # the images are told apart, far above the tolerance
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * largest)


@pytest.fixture(scope="module")
def digits():
    model = branchnets.create_model(DIGITS)
    images = jax.random.normal(jax.random.key(1), (6, 16, 16, 1))
    return model, schemes_of(DIGITS, model), random_variables(model, (16, 16, 1)), images


def test_the_test_would_see_a_wrong_block(digits):
    """Every block, and every statistic of it, reaches the logits of the random network."""
    model, schemes, variables, images = digits
    whole = apply(model, variables, images)
    flat, treedef = jax.tree_util.tree_flatten_with_path(variables)
    for i, (path, leaf) in enumerate(flat):
        changed = [x for _, x in flat]
        changed[i] = leaf * 1.1 + 0.05
        moved = apply(model, jax.tree.unflatten(treedef, changed), images)
        assert np.abs(moved - whole).max() > 1e-4 * np.abs(whole).max(), path


def test_every_class_of_the_digits_net(digits):
    model, schemes, variables, images = digits
    for k in range(10):
        check_equal(model, schemes, variables, images, [k])


@pytest.mark.parametrize("classes", [(2, 3), (7, 0, 4), tuple(range(10))])
def test_sets_are_masked_to_the_union(digits, classes):
    check_equal(*digits, classes)
    keep = slim.keep_of(digits[1], classes)
    for block, scheme in digits[1].items():
        union = set().union(*(np.flatnonzero(scheme.codewords[k]) for k in classes))
        assert keep[block].tolist() == sorted(union)


@pytest.mark.parametrize("name", [C10, C100])
def test_cifar_shapes(name):
    model = branchnets.create_model(name)
    images = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
    variables = random_variables(model, (8, 8, 3))
    schemes = schemes_of(name, model)
    for classes in [(0,), (model.num_classes - 1,)]:
        check_equal(model, schemes, variables, images, classes)


@pytest.mark.slow
def test_imagenet_shapes():
    model = branchnets.create_model(IMAGENET)
    images = jax.random.normal(jax.random.key(1), (2, 64, 64, 3))
    variables = random_variables(model, (64, 64, 3))
    for classes in [(0,), (999, 500, 2)]:
        check_equal(model, schemes_of(IMAGENET, model), variables, images, classes)


def test_without_normalisation(digits):
    model, schemes, variables, images = digits
    check_equal(model.clone(normalize=False), schemes, variables, images, [4])


def test_with_a_bias(digits):
    _, schemes, _, images = digits
    model = branchnets.create_model(DIGITS, head_bias=True)
    check_equal(model, schemes, random_variables(model, (16, 16, 1)), images, [4, 1])


def test_bfloat16(digits):
    model, schemes, variables, images = digits
    check_equal(model.clone(dtype=jnp.bfloat16), schemes, variables, images, [4], tolerance=2e-2)


def test_the_original_number_of_branches_matters(digits):
    """Dividing by the branches kept instead of N would be found."""
    model, schemes, variables, images = digits
    keep = slim.keep_of(schemes, [1])
    right = slim.slim_model(model, keep, [1])
    assert {s.norm_branches for s in right.coded_blocks().values()} == {10}
    stages = tuple(
        tuple(dataclasses.replace(s, norm_branches=s.norm_branches and s.branches) for s in stage)
        for stage in right.stages
    )
    weights = slim.slim_variables(model, variables, keep, [1])
    a = apply(right, weights, images)
    b = apply(right.clone(stages=stages), weights, images)
    assert np.abs(a - b).max() > 1e-2 * np.abs(a).max()


def test_gather_under_jit_and_map(digits):
    """One compiled program takes out any class: indices may be traced."""
    model, schemes, variables, images = digits
    keeps = [slim.keep_of(schemes, [k]) for k in range(10)]
    stacked = jax.tree.map(lambda *rows: jnp.stack(rows), *keeps)
    small = slim.slim_model(model, keeps[0], [0])

    def score(args):
        keep, k = args
        return small.apply(slim.slim_variables(model, variables, keep, k), images).logits[:, 0]

    mapped = jax.jit(lambda: jax.lax.map(score, (stacked, jnp.arange(10)[:, None])))()
    for k in range(10):
        ours, _, largest = scores(model, schemes, variables, images, [k])
        np.testing.assert_allclose(mapped[k], ours[:, 0], rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize(
    ("name", "parameters", "macs", "paper"),
    [
        (C10, 2_149_034, 0.619, 0.372),
        (C100, 1_777_744, 0.552, 0.271),
        (IMAGENET, 10_416_448, 0.696, 0.344),
    ],
)
def test_counts(name, parameters, macs, paper):
    model = branchnets.create_model(name)
    shape = branchnets.default_image_shape(name)
    keep = slim.keep_of(schemes_of(name, model), [0])
    small = slim.slim_model(model, keep, [0])
    assert describe(small, shape).parameters == parameters
    ratio = slim.layer_macs(small, shape) / slim.layer_macs(model, shape)
    assert ratio == pytest.approx(macs, abs=6e-4)
    # What slim_variables makes is what the module declares.
    init = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *shape)))
    made = jax.eval_shape(lambda v: slim.slim_variables(model, v, keep, [0]), init)
    declared = jax.eval_shape(small.init, jax.random.key(0), jnp.zeros((1, *shape)))
    assert made == declared and count_parameters(made) == parameters
    without = slim.without_shortcuts(made) / slim.without_shortcuts(init)
    assert without == pytest.approx(paper, abs=6e-4)


def test_refusals(digits):
    model, schemes, variables, _ = digits
    keep = slim.keep_of(schemes, [0])
    with pytest.raises(ConfigError, match="aggregate='concat'.*cannot be slimmed"):
        slim.slim_model(model.clone(aggregate="concat"), keep, [0])
    plain = branchnets.create_model(DIGITS, active=((10,), (10, 10), (10, 10)))
    with pytest.raises(ConfigError, match="no coded block"):
        slim.slim_model(plain, {}, [0])
    with pytest.raises(ConfigError, match="at least one class"):
        slim.keep_of(schemes, [])
    with pytest.raises(ConfigError, match="'stage2/block0' is not a coded block"):
        slim.slim_model(model, {"stage2/block0": [1]}, [0])

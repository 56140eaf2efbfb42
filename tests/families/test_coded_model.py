"""Coded ResNeXt: degenerate cases, masks, counts, drop masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import branchnets
from benchmarks import literal
from branchnets.families.coded import energy
from branchnets.families.coded.model import BranchMasks, CodedBlockSpec, CodedBottleneck

IMAGES = jax.random.normal(jax.random.key(1), (6, 16, 16, 1))


@pytest.fixture(scope="module")
def small():
    model = branchnets.create_model("coded_resnext_digits")
    variables = jax.jit(model.init)(jax.random.key(0), IMAGES[:1])
    # The last batch norm of a block starts at 0: make every block count.
    params = jax.tree_util.tree_map_with_path(
        lambda path, x: (
            jnp.ones_like(x)
            if "expand_bn" in str(path) and x.sum() == 0 and "scale" in str(path)
            else x
        ),
        variables["params"],
    )
    return model, {**variables, "params": params}


def shapes(model, shape):
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, *shape))))


@pytest.mark.parametrize(
    ("coded", "plain", "overrides"),
    [
        ("coded_resnext29_10x11d_cifar10", "resnext29_10x11d", {"active": ((10,) * 3,) * 3}),
        ("coded_resnext_digits", "resnext_digits", {"active": ((10,), (10, 10), (10, 10))}),
    ],
)
def test_ratio_one_everywhere_is_the_plain_resnext(coded, plain, overrides):
    shape = branchnets.default_image_shape(coded)
    ours = branchnets.create_model(coded, **overrides)
    theirs = branchnets.create_model(plain)
    assert shapes(ours, shape) == shapes(theirs, shape)
    if plain == "resnext_digits":
        variables = theirs.init(jax.random.key(0), IMAGES[:1])
        same = ours.apply(variables, IMAGES).logits == theirs.apply(variables, IMAGES).logits
        assert same.all() and not ours.apply(variables, IMAGES).energies


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("coded_resnext29_10x11d_cifar10", 4_638_926),
        ("coded_resnext29_20x6d_cifar100", 4_749_136),
        ("coded_resnext50_32x4d_imagenet", 25_027_904),
        ("resnext29_10x11d", 4_638_926),
        ("resnext29_20x6d", 4_749_136),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
        ("resnext50_32x4d", 25_028_904),
    ],
)
def test_exact_parameter_counts(name, count):
    model = branchnets.create_model(name)
    params = shapes(model, branchnets.default_image_shape(name))["params"]
    assert sum(x.size for x in jax.tree.leaves(params)) == count


def test_energies_are_the_literal_ones_inside_the_network(small):
    model, variables = small
    output = jax.jit(model.apply)(variables, IMAGES)
    assert list(output.energies) == list(model.coded_blocks())
    for name, found in output.energies.items():
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found.sum(1), 10, rtol=1e-5, err_msg=name)


def test_block_equals_the_papers_block():
    spec = CodedBlockSpec(channels=24, branches=4, width=3, stride=2, norm_branches=4)
    block = CodedBottleneck(spec)
    x = jax.random.normal(jax.random.key(2), (3, 8, 8, 12))
    variables = block.init(jax.random.key(3), x)
    params = {**variables["params"]}
    params["expand_bn"] = {"scale": jnp.ones(24), "bias": jnp.zeros(24)}
    variables = {**variables, "params": params}
    drop = jnp.array([[1, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]]) / 0.9
    masks = BranchMasks(drop=drop)
    found, measured = block.apply(variables, x, masks)
    closed, wanted = literal.LiteralBottleneck(spec).apply(variables, x, masks)
    np.testing.assert_allclose(measured, wanted, atol=1e-5)
    np.testing.assert_allclose(found, closed, atol=1e-5 * np.abs(closed).max())


def test_removing_a_branch_is_zeroing_its_parameters(small):
    model, variables = small
    keep = jnp.ones((6, 10)).at[:, 3].set(0)
    masked = model.apply(variables, IMAGES, remove={"stage4/block0": keep})
    params = jax.tree.map(lambda x: x, variables["params"])
    width = model.coded_blocks()["stage4/block0"].width
    kernel = params["stage4"]["block0"]["expand"]["kernel"]
    params["stage4"]["block0"]["expand"]["kernel"] = kernel.at[:, :, 3 * width : 4 * width].set(0)
    zeroed = model.apply({**variables, "params": params}, IMAGES)
    np.testing.assert_allclose(masked.logits, zeroed.logits, atol=1e-5)
    energies = masked.energies["stage4/block0"]
    assert (energies[:, 3] == 0).all()
    np.testing.assert_allclose(energies.sum(1), 10, rtol=1e-5)


def test_removal_is_per_example(small):
    model, variables = small
    keep = jnp.ones((6, 10)).at[2, :5].set(0)
    removed = model.apply(variables, IMAGES, remove={"stage3/block1": keep}).logits
    whole = model.apply(variables, IMAGES).logits
    changed = np.abs(removed - whole).max(axis=1) > 1e-4
    assert changed.tolist() == [False, False, True, False, False, False]


def test_drop_masks_are_shared_along_a_run_of_one_scheme():
    model = branchnets.create_model(
        "coded_resnext_digits", active=((10,), (5, 5), (5, 3)), drop_rate=0.5
    )
    assert [s.drop_run for s in model.coded_blocks().values()] == [1, 1, 1, 2]
    drawn = model.apply(
        {}, 4, True, rngs={"drop": jax.random.key(0)}, method=lambda m, b, t: m._drop_masks(b, t)
    )
    first, second, third, last = drawn.values()
    assert (first == second).all() and (first == third).all() and not (first == last).all()
    assert set(np.unique(first)) == {0.0, 2.0}


def test_dropping_only_happens_in_training(small):
    model, variables = small
    assert (model.apply(variables, IMAGES).logits == model.apply(variables, IMAGES).logits).all()

    def train(key):
        return model.apply(
            variables, IMAGES, train=True, mutable=["batch_stats"], rngs={"drop": key}
        )[0].logits

    assert not (train(jax.random.key(0)) == train(jax.random.key(1))).all()
    assert (train(jax.random.key(0)) == train(jax.random.key(0))).all()


def test_blocked_gradients_reach_only_the_allowed_branches(small):
    model, variables = small
    block, width = "stage4/block1", 12

    def loss(params, gradient):
        output = model.apply({**variables, "params": params}, IMAGES, gradient=gradient)
        return jnp.sum(output.logits**2), output.logits

    allowed = jnp.zeros((6, 10)).at[:, jnp.array([1, 4])].set(1)
    grads, blocked = jax.grad(loss, has_aux=True)(variables["params"], {block: allowed})
    _, free = jax.grad(loss, has_aux=True)(variables["params"], None)
    np.testing.assert_allclose(blocked, free, atol=1e-5)
    kernel = grads["stage4"]["block1"]["expand"]["kernel"][0, 0].reshape(10, width, -1)
    reached = np.abs(kernel).max(axis=(1, 2)) > 0
    assert np.flatnonzero(reached).tolist() == [1, 4]


def test_concatenation_pads_to_the_channels():
    model = branchnets.create_model("coded_resnext_digits", aggregate="concat")
    variables = model.init(jax.random.key(0), IMAGES[:1])
    kernel = variables["params"]["stage3"]["block0"]["expand"]["kernel"]
    assert kernel.shape == (1, 1, 6, 10 * (128 // 10))
    output = model.apply(variables, IMAGES)
    np.testing.assert_allclose(output.energies["stage3/block0"].sum(1), 10, rtol=1e-5)


def test_without_normalisation_energies_are_raw(small):
    _, variables = small
    model = branchnets.create_model("coded_resnext_digits", normalize=False)
    energies = model.apply(variables, IMAGES).energies["stage3/block0"]
    assert np.abs(energies.sum(1) - 10).max() > 1e-3


def test_bad_masks_and_ratios_are_refused(small):
    model, variables = small
    with pytest.raises(ValueError, match="'stage9/block0' is not a coded block"):
        model.apply(variables, IMAGES, remove={"stage9/block0": jnp.ones((6, 10))})
    with pytest.raises(ValueError, match=r"must be \(6, 10\)"):
        model.apply(variables, IMAGES, remove={"stage3/block0": jnp.ones((6, 9))})
    with pytest.raises(ValueError, match="1 to 10"):
        branchnets.create_model("coded_resnext_digits", active=((10,), (5, 0), (3, 3)))
    with pytest.raises(ValueError, match="2 stages, the network 3"):
        branchnets.create_model("coded_resnext_digits", active=((10,), (5,)))


def test_ratio_may_change_inside_a_stage():
    model = branchnets.create_model(
        "coded_resnext50_32x4d_imagenet",
        active=((32,) * 3, (24,) * 4, (16,) * 3 + (8,) * 3, (4,) * 3),
    )
    runs = [spec.drop_run for spec in model.coded_blocks().values()]
    assert runs == [1] * 4 + [2] * 3 + [3] * 3 + [4] * 3


def test_a_slimmed_block_keeps_the_original_number_of_branches():
    kernel = jax.random.normal(jax.random.key(0), (12, 8))
    hidden = jax.random.normal(jax.random.key(1), (2, 3, 3, 12))
    raw = energy.gram_energies(hidden, energy.gram(kernel, 4)) / 8
    keep = jnp.array([1.0, 0, 1, 0])
    full = energy.normaliser(raw * keep, 4)
    slim = energy.normaliser(raw[:, ::2], 4)
    np.testing.assert_allclose(full, slim, rtol=1e-6)


@pytest.mark.parametrize("at", ["stage2/block0", "stage3/block1", "stage4/block0"])
def test_a_network_run_in_two_parts_is_the_whole(small, at):
    model, variables = small
    whole = model.apply(variables, IMAGES)
    before = model.apply(variables, IMAGES, stop=at)
    after = model.apply(variables, before.features, start=at)
    assert before.logits is None
    np.testing.assert_array_equal(after.logits, whole.logits)
    assert list({**before.energies, **after.energies}) == list(whole.energies)
    for block, energies in {**before.energies, **after.energies}.items():
        np.testing.assert_array_equal(energies, whole.energies[block])


def test_a_part_that_does_not_exist_is_refused(small):
    model, variables = small
    with pytest.raises(ValueError, match="stop: 'stage9/block0' is not a block; those are stage2"):
        model.apply(variables, IMAGES, stop="stage9/block0")
    with pytest.raises(ValueError, match="cannot start at stage4/block0 and stop before"):
        model.apply(variables, IMAGES, start="stage4/block0", stop="stage3/block0")


def test_branches_and_width_can_be_others():
    active = ((20,), (10,), (10,))
    model = branchnets.create_model("coded_resnext_digits", branches=20, width=2, active=active)
    spec = model.coded_blocks()["stage3/block0"]
    assert (spec.branches, spec.width, spec.norm_branches, spec.channels) == (20, 4, 20, 128)
    with pytest.raises(ValueError, match="active must be 1 to 4 in every block"):
        branchnets.create_model("coded_resnext_digits", branches=4)

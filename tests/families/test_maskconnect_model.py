"""MaskConnect's network: counts, degenerate cases, connections, masks of a wrong shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import branchnets
from branchnets.counting import count_parameters, describe
from branchnets.errors import ConfigError
from branchnets.families.maskconnect.model import MaskConnectNet, fixed
from branchnets.families.plain.resnet import ResNet

IMAGES = jax.random.normal(jax.random.key(1), (4, 16, 16, 1))
SMALL = dict(depths=(1, 2), branches=4, width=2, channels=16, fan_in=2)


def create(**overrides):
    return branchnets.create_model("maskconnect_digits", **{**SMALL, **overrides})


@pytest.fixture(scope="module")
def small():
    model = create()
    return model, jax.jit(model.init)(jax.random.key(0), IMAGES[:1])


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("maskconnect20_w4_c8", 283_572),
        ("maskconnect29_w8_c8", 858_292),  # 0.86 M in Table 1
        ("maskconnect29_w64_c8", 34_594_212),
        ("maskconnect20_w4_c8_miniimagenet", 283_572),
    ],
)
def test_parameters_are_the_papers_and_masks_are_not_among_them(name, count):
    assert describe(branchnets.create_model(name), (32, 32, 3)).parameters == count


def test_fixed_full_is_the_true_resnext():
    model = branchnets.create_model("maskconnect29_w64_c8", connectivity="full", num_classes=10)
    assert isinstance(model, ResNet)
    assert describe(model, (32, 32, 3)).parameters == 34_426_698  # 34.4 M in Table 1


def test_every_module_but_the_first_has_a_mask(small):
    model, variables = small
    assert {n: m.shape for n, m in variables["masks"].items()} == {
        "stage3/block0": (4, 4),
        "stage3/block1": (4, 4),
    }
    for mask in variables["masks"].values():
        np.testing.assert_allclose(mask, 0.25)


def slow(model, variables, images, chosen):
    """The equations, branch by branch, in evaluation mode."""
    params, stats = variables["params"], variables["batch_stats"]

    def norm(x, path, part, columns=slice(None)):
        p, s = params, stats
        for key in (*path, part):
            p, s = p[key], s[key]
        factor = p["scale"] / jnp.sqrt(s["var"] + 1e-5)
        return ((x - s["mean"][columns]) * factor[columns]) + p["bias"][columns]

    def conv(x, kernel, stride=1):
        pad = (kernel.shape[0] - 1) // 2
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            [(pad, pad)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    x = jax.nn.relu(norm(conv(images, params["stem"]["conv"]["kernel"]), ("stem",), "bn"))
    streams = [x]
    for name, spec in model.modules().items():
        stage, block = name.split("/")
        own = params[stage][block]
        outputs = []
        for j in range(spec.branches):
            if name in chosen:
                x = sum(float(chosen[name][j, k]) * streams[k] for k in range(len(streams)))
            else:
                x = streams[0]
            inner = slice(j * spec.width, (j + 1) * spec.width)
            outer = slice(j * spec.channels, (j + 1) * spec.channels)
            path = (stage, block)
            h = jax.nn.relu(
                norm(conv(x, own["reduce"]["kernel"][..., inner]), path, "reduce_bn", inner)
            )
            h = conv(h, own["branch_conv"]["kernel"][..., inner], spec.stride)
            h = jax.nn.relu(norm(h, path, "branch_bn", inner))
            h = norm(conv(h, own["expand"]["kernel"][..., outer]), path, "expand_bn", outer)
            if "shortcut" in own:
                x = norm(
                    conv(x, own["shortcut"]["conv"]["kernel"], spec.stride),
                    (stage, block, "shortcut"),
                    "bn",
                )
            outputs.append(jax.nn.relu(x + h))
        streams = outputs
    pooled = sum(streams).mean((1, 2))
    return pooled @ params["head"]["linear"]["kernel"] + params["head"]["linear"]["bias"]


def shaken(variables):
    """Every weight and statistic moved, so that nothing is 0 or 1 by initialisation."""
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    moved = [
        x + 0.1 * jnp.abs(jax.random.normal(k, x.shape)) for x, k in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(tree, moved)


@pytest.mark.parametrize("connect", ["top", "real"])
def test_the_network_is_the_equations(small, connect):
    model, variables = small
    variables = shaken(variables)
    output = model.apply(variables, IMAGES, connect=connect)
    wanted = slow(model, variables, IMAGES, output.connections)
    np.testing.assert_allclose(output.logits, wanted, rtol=2e-4, atol=2e-4)


def test_a_drawn_network_differs_from_draw_to_draw_and_has_its_fan_in(small):
    model, variables = small
    outputs = [
        model.apply(variables, IMAGES, connect="sample", rngs={"masks": jax.random.key(i)})
        for i in range(2)
    ]
    for output in outputs:
        for mask in output.connections.values():
            np.testing.assert_array_equal(mask.sum(-1), 2)
    assert not np.array_equal(outputs[0].logits, outputs[1].logits)


def test_ones_read_every_branch_and_the_mean_divides():
    model = create(connectivity="ones")
    assert model.fan_in == 4
    variables = shaken(jax.jit(model.init)(jax.random.key(0), IMAGES[:1]))
    ones = {name: jnp.ones_like(m) for name, m in variables["masks"].items()}
    variables = {**variables, "masks": ones}
    mean = create(connectivity="ones", aggregate="mean")
    real = create(connectivity="real")
    quarter = {name: m / 4 for name, m in ones.items()}
    summed = real.apply({**variables, "masks": quarter}, IMAGES, connect="real").logits
    bias = variables["params"]["head"]["linear"]["bias"]
    np.testing.assert_allclose(
        mean.apply(variables, IMAGES).logits, (summed - bias) / 4 + bias, rtol=1e-5
    )


def test_random_connectivity_is_drawn_once_and_from_the_seed():
    model = create(connectivity="random")
    first, again, other = (
        jax.jit(model.init)(jax.random.key(s), IMAGES[:1])["masks"] for s in (0, 0, 1)
    )
    for mask in first.values():
        np.testing.assert_array_equal(mask.sum(-1), 2)
    assert jax.tree.all(jax.tree.map(np.array_equal, first, again))
    assert not jax.tree.all(jax.tree.map(np.array_equal, first, other))


@pytest.mark.parametrize("fan_in", [0, 5])
def test_a_fan_in_outside_1_to_c_is_refused(fan_in):
    with pytest.raises(ValueError, match=f"fan_in is {fan_in}; a branch can read 1 to 4"):
        create(fan_in=fan_in)


def test_wrong_names_are_refused(small):
    model, variables = small
    with pytest.raises(ValueError, match="Did you mean 'learned'"):
        create(connectivity="learn")
    with pytest.raises(ConfigError, match="unknown aggregate 'max'. Known: mean, sum"):
        create(aggregate="max")
    with pytest.raises(ValueError, match="unknown aggregate 'max'; use sum, mean"):
        model.clone(aggregate="max").apply(variables, IMAGES)
    with pytest.raises(ValueError, match="unknown connect 'best'"):
        model.apply(variables, IMAGES, connect="best")


def test_a_mask_of_a_wrong_shape_is_refused(small):
    model, variables = small
    masks = {**variables["masks"], "stage3/block1": jnp.ones((4, 3))}
    with pytest.raises(ValueError, match=r"stage3/block1 has shape \(4, 3\), must be \(4, 4\)"):
        model.apply({**variables, "masks": masks}, IMAGES)


def test_connections_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="connections of 1 branches, there are 2"):
        fixed(((0,),), 2, 3, "stage3/block0")
    with pytest.raises(ValueError, match="branch 1 reads .3,.; it needs at least one of 0 to 2"):
        fixed(((0,), (3,)), 2, 3, "stage3/block0")


def test_an_untrained_imagenet_network_has_the_resnexts_size():
    ours = branchnets.create_model("maskconnect50_w4_c32")
    shapes = jax.eval_shape(lambda: ours.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3))))
    plain = describe(branchnets.create_model("resnext50_32x4d"), (64, 64, 3)).parameters
    assert isinstance(ours, MaskConnectNet) and ours.fan_in == 16
    # A branch has a batch norm of its own after its expansion: 31 more scales and biases a channel.
    extra = sum(2 * 31 * spec.channels for spec in ours.modules().values())
    assert count_parameters(shapes) == plain + extra

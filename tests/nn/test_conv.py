"""Every lowering of `grouped_conv` is the same function, forward and backward."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from branchnets.nn.conv import Conv, choose_lowering, grouped_conv, he_normal_fan_out
from branchnets.nn.lowering import PLATFORMS


def reference(x, kernel, groups, stride, padding):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((padding, padding), (padding, padding)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def operands(size, channels, features, groups, k, dtype=jnp.float32, seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    x = jax.random.normal(keys[0], (2, *size, channels), dtype)
    kernel = jax.random.normal(keys[1], (k, k, channels // groups, features), dtype)
    return x, kernel / np.sqrt(k * k * channels // groups).astype(dtype), keys[2]


def assert_same(x, kernel, groups, stride, padding, lowering, key):
    p = (kernel.shape[0] - 1) // 2 if padding is None else padding

    def run(a, b):
        return grouped_conv(a, b, groups=groups, stride=stride, padding=padding, lowering=lowering)

    want = with_gradients(lambda a, b: reference(a, b, groups, stride, p), x, kernel, key)
    for got, wanted in zip(with_gradients(run, x, kernel, key), want, strict=True):
        scale = max(1.0, float(jnp.abs(wanted).max()))
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5 * scale)


def with_gradients(f, x, kernel, key):
    """f's value and its two gradients for one random cotangent, compiled as one program."""

    @jax.jit
    def run(x, kernel):
        y, vjp = jax.vjp(f, x, kernel)
        return y, *vjp(jax.random.normal(key, y.shape, y.dtype))

    return run(x, kernel)


SHAPES = [
    # size, C_in, C_out, groups, kernel, stride, padding
    ((6, 6), 10, 10, 5, 3, 1, None),
    ((7, 5), 10, 20, 5, 3, 2, None),
    ((8, 8), 12, 12, 6, 3, 2, None),
    ((6, 7), 12, 6, 3, 3, 1, 0),
    ((9, 9), 4, 8, 4, 5, 2, None),
    ((5, 5), 3, 8, 1, 3, 1, None),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_chosen_lowering_is_the_convolution(shape):
    size, channels, features, groups, k, stride, padding = shape
    x, kernel, key = operands(size, channels, features, groups, k)
    assert_same(x, kernel, groups, stride, padding, None, key)


@pytest.mark.parametrize("shape", SHAPES[1:4], ids=str)
@pytest.mark.parametrize("lowering", ["grouped", "dense", "packed:1", "packed:2", "packed:4,2"])
def test_every_lowering_is_the_same_convolution(shape, lowering):
    size, channels, features, groups, k, stride, padding = shape
    x, kernel, key = operands(size, channels, features, groups, k)
    assert_same(x, kernel, groups, stride, padding, lowering, key)


@pytest.mark.parametrize(
    "groups,lowering",
    [
        (1, None),
        (1, "grouped"),
        (4, None),
        (4, "dot"),
        (4, "dot:2"),
        (4, "dot:3"),  # the last product has the one group that is left
        (4, "dot:4"),
        (4, "dot:8"),
    ],
)
@pytest.mark.parametrize("size,stride", [((6, 6), 1), ((7, 5), 2)])
def test_pointwise_lowerings_agree(groups, lowering, size, stride):
    x, kernel, key = operands(size, 8, 12, groups, 1)
    assert_same(x, kernel, groups, stride, None, lowering, key)


@pytest.mark.parametrize("lowering,products", [("dot:1", 4), ("dot:2", 2), ("dot:4", 1)])
def test_a_pack_of_groups_is_one_product(lowering, products):
    x, kernel, _ = operands((4, 4), 8, 12, 4, 1)
    run = jax.jit(lambda a, b: grouped_conv(a, b, groups=4, lowering=lowering))
    text = run.lower(x, kernel).as_text()
    assert text.count("stablehlo.dot_general") == products and "convolution" not in text


@pytest.mark.parametrize("groups,lowering", [(1, None), (4, "dot:1"), (4, "dot:3")])
def test_pointwise_layers_that_narrow_agree_too(groups, lowering):
    x, kernel, key = operands((7, 5), 12, 8, groups, 1)
    assert_same(x, kernel, groups, 2, None, lowering, key)


@pytest.mark.parametrize("channels,features", [(24, 6), (6, 24)])
def test_the_narrow_operand_comes_first_in_the_gradient_of_a_kernel_on_cpu(channels, features):
    x, kernel, key = operands((4, 4), channels, features, 1, 1)
    run = jax.jit(jax.grad(lambda k: (grouped_conv(x, k, groups=1) ** 2).sum()))
    device = jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0])
    like = jax.ShapeDtypeStruct(kernel.shape, kernel.dtype, sharding=device)
    assert re.search(r"f32\[6,24\]\S* dot\(", run.lower(like).compile().as_text())


def test_padded_pointwise_is_not_a_dot():
    x, kernel, key = operands((4, 4), 4, 4, 2, 1)
    assert_same(x, kernel, 2, 1, 1, None, key)


def test_a_branch_sees_its_own_channels_only():
    x, kernel, _ = operands((4, 4), 6, 9, 3, 3)
    y = grouped_conv(x, kernel, groups=3)
    changed = grouped_conv(x.at[..., 2:4].add(1), kernel, groups=3)
    same = np.isclose(y, changed).all((0, 1, 2))
    assert same.tolist() == [True] * 3 + [False] * 3 + [True] * 3


@pytest.mark.parametrize("groups,k", [(1, 1), (1, 3), (5, 3)])
def test_bfloat16_is_rounded_only_at_the_ends(groups, k):
    x, kernel, key = operands((6, 6), 20, 20, groups, k, jnp.bfloat16)
    dy = jax.random.normal(key, x.shape, jnp.bfloat16)

    @jax.jit
    def both(x, kernel, dy):
        got, vjp = jax.vjp(lambda a, b: grouped_conv(a, b, groups=groups), x, kernel)
        exact = [a.astype(jnp.float32) for a in (x, kernel, dy)]
        want, want_vjp = jax.vjp(lambda a, b: reference(a, b, groups, 1, (k - 1) // 2), *exact[:2])
        return (got, *vjp(dy)), (want, *want_vjp(exact[2]))

    for got, want in zip(*both(x, kernel, dy), strict=True):
        assert got.dtype == jnp.bfloat16 and want.dtype == jnp.float32
        np.testing.assert_allclose(got.astype(np.float32), want, rtol=2**-8, atol=1e-4)


def test_works_under_vmap_and_scan():
    x, kernel, _ = operands((4, 4), 6, 6, 3, 3)
    kernels = jnp.stack([kernel, 2 * kernel])
    y = jax.jit(jax.vmap(lambda k: grouped_conv(x, k, groups=3)))(kernels)
    np.testing.assert_allclose(y[1], 2 * y[0], rtol=1e-5, atol=1e-5)
    scan = jax.jit(lambda: lax.scan(lambda c, k: (c, grouped_conv(x, k, groups=3)), 0, kernels)[1])
    scanned = scan()
    np.testing.assert_allclose(scanned, y, rtol=1e-5, atol=1e-5)


def test_backward_holds_no_forward_convolution():
    x, kernel, _ = operands((6, 6), 44, 44, 4, 3)

    def backward(x, kernel, dy):
        return jax.vjp(lambda a, b: grouped_conv(a, b, groups=4), x, kernel)[1](dy)

    def forward(x, kernel):
        return grouped_conv(x, kernel, groups=4)

    def convolutions(platform, f, *args):
        text = jax.jit(f).trace(*args).lower(lowering_platforms=(platform,)).as_text()
        return text.count("stablehlo.convolution")

    assert choose_lowering("cpu", x.shape, kernel.shape, 4) == "packed:2,1"
    assert convolutions("cpu", forward, x, kernel) == 2
    assert convolutions("tpu", forward, x, kernel) == 1
    compiled = jax.jit(backward).lower(x, kernel, x).compile().as_text()
    # On CPU two for x's gradient and four for the kernel's; one for each elsewhere.
    assert len(re.findall(r" convolution\(", compiled)) == 2 + 4
    assert convolutions("tpu", backward, x, kernel, x) == 1 + 1


def test_the_choice_is_made_for_the_target_and_not_for_the_host():
    x, kernel, _ = operands((8, 8), 110, 110, 10, 3)
    traced = jax.jit(lambda a, b: grouped_conv(a, b, groups=10)).trace(x, kernel)
    for platform in PLATFORMS:
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        name = choose_lowering(platform, x.shape, kernel.shape, 10)
        assert ("feature_group_count = 10" in text) == (name == "grouped")
    assert choose_lowering("tpu", x.shape, kernel.shape, 10) == "grouped"
    assert choose_lowering("cpu", x.shape, kernel.shape, 10) != "grouped"


@pytest.mark.parametrize(
    "width,groups,stride,expected",
    [
        (4, 32, 1, "packed:8,4"),
        (6, 20, 1, "packed:4,2"),
        (11, 10, 1, "packed:2,1"),
        (16, 32, 2, "packed:4,2"),
        (44, 10, 1, "packed:1"),
        (4, 3, 1, "packed:2,1"),
        (64, 1, 2, "grouped"),
    ],
)
def test_measured_choices_on_cpu(width, groups, stride, expected):
    shape = (8, 16, 16, width * groups)
    kernel = (3, 3, width, width * groups)
    assert choose_lowering("cpu", shape, kernel, groups, stride) == expected


@pytest.mark.parametrize(
    "groups,in_group,out_group,expected",
    [
        (1, 64, 256, "dot"),
        (1, 256, 110, "dot:1"),
        (8, 64, 4, "dot:8"),  # MaskConnect's {20,4,8}: into a branch's bottleneck, and out of it
        (8, 4, 64, "dot:8"),
        (8, 8, 64, "dot:8"),
        (8, 256, 16, "dot:1"),
        (8, 32, 256, "dot:1"),
        (32, 256, 4, "dot:8"),
        (32, 8, 512, "dot:4"),
    ],
)
def test_measured_choices_of_pointwise_layers_on_cpu(groups, in_group, out_group, expected):
    x, kernel = (8, 16, 16, groups * in_group), (1, 1, in_group, groups * out_group)
    assert choose_lowering("cpu", x, kernel, groups) == expected
    for platform in ("tpu", "cuda"):
        wanted = "dot" if groups == 1 and platform != "tpu" else "grouped"
        assert choose_lowering(platform, x, kernel, groups) == wanted


@pytest.mark.tpu_compile
def test_compiling_for_a_tpu_takes_the_grouped_form():
    pytest.importorskip("libtpu")
    from jax.experimental import topologies

    topology = topologies.get_topology_desc(platform="tpu", topology_name="v2:2x2")
    device = jax.sharding.SingleDeviceSharding(topology.devices[0])
    x = jax.ShapeDtypeStruct((8, 32, 32, 110), jnp.float32, sharding=device)
    kernel = jax.ShapeDtypeStruct((3, 3, 11, 110), jnp.float32, sharding=device)

    def step(x, kernel):
        return jax.grad(lambda a, b: (grouped_conv(a, b, groups=10) ** 2).sum(), (0, 1))(x, kernel)

    lowered = jax.jit(step).trace(x, kernel).lower(lowering_platforms=("tpu",))
    text = lowered.as_text()
    # Forward and input gradient are grouped; the kernel's gradient is grouped over the batch.
    assert text.count("stablehlo.convolution") == 3
    assert text.count("feature_group_count = 10") == 2
    assert text.count("batch_group_count = 10") == 1
    compiled = lowered.compile()
    assert compiled.cost_analysis()["flops"] > 0


@pytest.mark.parametrize(
    "change,message",
    [
        ({"groups": 4}, "input channels"),
        ({"groups": 0}, "at least 1"),
        ({"stride": 0}, "at least 1"),
        ({"kernel": jnp.zeros((3, 3, 2, 6), jnp.bfloat16)}, "cast one"),
        ({"kernel": jnp.zeros((3, 2, 6))}, "expects x"),
        ({"kernel": jnp.zeros((3, 3, 2, 7))}, "multiple of 3"),
        ({"lowering": "fast"}, "Unknown lowering 'fast'"),
        ({"lowering": "packed:0"}, "Unknown lowering"),
        ({"lowering": "packed:2,"}, "Unknown lowering"),
        ({"lowering": "packed"}, "Unknown lowering"),
        ({"lowering": "dot:0"}, "Unknown lowering"),
        ({"lowering": "dot:2,1"}, "Unknown lowering"),
        ({"lowering": "dot"}, "1x1 kernels"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {"x": jnp.zeros((1, 4, 4, 6)), "kernel": jnp.zeros((3, 3, 2, 6)), "groups": 3}
    with pytest.raises(ValueError, match=message):
        grouped_conv(**(arguments | change))


def test_module_parameters_and_output():
    model = Conv(features=20, kernel_size=3, stride=2, groups=5, use_bias=True)
    x = jnp.ones((2, 7, 7, 10))
    variables = model.init(jax.random.key(0), x)
    shapes = jax.tree.map(jnp.shape, variables["params"])
    assert shapes == {"kernel": (3, 3, 2, 20), "bias": (20,)}
    assert model.apply(variables, x).shape == (2, 4, 4, 20)
    half = Conv(features=20, kernel_size=3, groups=5, dtype=jnp.bfloat16)
    y, variables = half.init_with_output(jax.random.key(0), x)
    assert y.dtype == jnp.bfloat16 and variables["params"]["kernel"].dtype == jnp.float32


def test_module_refuses_groups_that_do_not_divide():
    with pytest.raises(ValueError, match="4 groups must divide"):
        Conv(features=8, groups=4).init(jax.random.key(0), jnp.ones((1, 4, 4, 6)))
    with pytest.raises(ValueError, match="expects images"):
        Conv(features=8).init(jax.random.key(0), jnp.ones((4, 6)))


def test_initial_kernels_have_the_variance_of_he_fan_out():
    kernel = he_normal_fan_out(jax.random.key(0), (3, 3, 4, 512), jnp.float32)
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (3 * 3 * 512)), rtol=0.03)

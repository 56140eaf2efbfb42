import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax import lax

import branchnets
from branchnets.counting import Row, count_macs, count_parameters, describe
from branchnets.nn.conv import Conv, grouped_conv

F32 = jnp.float32


def shape(*dims):
    return jax.ShapeDtypeStruct(dims, F32)


def conv(x, kernel, stride=1, padding="VALID", **kwargs):
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), **kwargs
    )


@pytest.mark.parametrize(
    ("contract", "batch", "left", "right", "expected"),
    [
        (((1,), (0,)), ((), ()), (3, 4), (4, 5), 3 * 4 * 5),
        (((2,), (1,)), ((0,), (0,)), (7, 3, 4), (7, 4, 5), 7 * 3 * 4 * 5),
        (((0, 1), (0, 1)), ((), ()), (3, 4), (3, 4), 3 * 4),
        (((), ()), ((), ()), (3,), (5,), 3 * 5),
    ],
)
def test_products(contract, batch, left, right, expected):
    product = partial(lax.dot_general, dimension_numbers=(contract, batch))
    assert count_macs(product, shape(*left), shape(*right)) == expected


def test_convolution_counts_outputs_times_kernel_times_group_inputs():
    x, kernel = shape(2, 9, 9, 8), shape(3, 5, 2, 12)
    count = count_macs(partial(conv, feature_group_count=4), x, kernel)
    assert count == 2 * 7 * 5 * 12 * (3 * 5 * 2)


def test_padding_is_counted_like_any_position():
    x, kernel = shape(1, 8, 8, 4), shape(3, 3, 4, 6)
    padded = ((1, 1), (1, 1))
    assert count_macs(partial(conv, padding=padded), x, kernel) == 64 * 6 * 9 * 4
    assert count_macs(partial(conv, stride=2, padding=padded), x, kernel) == 16 * 6 * 9 * 4


def test_batch_groups():
    x, kernel = shape(6, 5, 5, 4), shape(3, 3, 4, 6)
    count = count_macs(partial(conv, batch_group_count=3), x, kernel)
    assert count == 2 * 9 * 6 * (9 * 4)


def test_backward_pass_costs_what_the_forward_does_twice():
    # Strided: the gradient for the input is a convolution with zeros between its entries.
    x, kernel = shape(2, 8, 8, 4), shape(2, 2, 4, 6)
    forward = partial(conv, stride=2)

    def backward(x, kernel):
        return jax.grad(lambda x, k: forward(x, k).sum(), argnums=(0, 1))(x, kernel)

    once = count_macs(forward, x, kernel)
    assert once == 2 * 16 * 6 * 4 * 4
    assert count_macs(backward, x, kernel) == 3 * once


def test_looks_inside_everything_that_holds_a_program():
    a = shape(4, 4)

    @jax.custom_vjp
    def custom(x):
        return x @ x

    custom.defvjp(lambda x: (x @ x, x), lambda x, dy: (dy @ x + x @ dy,))

    @jax.custom_jvp
    def jvp(x):
        return x @ x

    jvp.defjvp(lambda x, t: (x[0] @ x[0], t[0] @ x[0]))
    for fn in (jax.jit(lambda x: x @ x), jax.checkpoint(lambda x: x @ x), custom, jvp):
        assert count_macs(fn, a) == 64
        assert count_macs(jax.jit(lambda x, fn=fn: fn(fn(x))), a) == 128


def test_scan_counts_its_length():
    def fn(x):
        return lax.scan(lambda c, _: (c @ c, None), x, length=7)[0]

    assert count_macs(fn, shape(3, 3)) == 7 * 27

    def nested(x):
        return lax.scan(lambda c, _: (fn(c), None), x, length=2)[0]

    assert count_macs(nested, shape(3, 3)) == 2 * 7 * 27


def test_conditional_counts_its_costliest_branch():
    def fn(i, x):
        return lax.switch(i, [lambda x: x, lambda x: x @ x @ x, lambda x: x @ x], x)

    assert count_macs(fn, jax.ShapeDtypeStruct((), jnp.int32), shape(3, 3)) == 54


def test_while_loop_is_refused_only_where_it_multiplies():
    def loop(body):
        return lambda n, x: lax.while_loop(
            lambda s: s[0] > 0, lambda s: (s[0] - 1, body(s[1])), (n, x)
        )[1]

    n = jax.ShapeDtypeStruct((), jnp.int32)
    assert count_macs(loop(lambda x: x + 1), n, shape(3, 3)) == 0
    with pytest.raises(ValueError, match="while loop"):
        count_macs(loop(lambda x: x @ x), n, shape(3, 3))


def test_platform_dependent_program_counts_the_reference_form():
    def fn(x):
        return lax.platform_dependent(x, cpu=lambda x: x @ x @ x, default=lambda x: x @ x)

    def named(x):
        return lax.platform_dependent(
            x, tpu=lambda x: x @ x @ x, default=lambda x: x @ x, cpu=lambda x: x
        )

    assert count_macs(fn, shape(3, 3)) == 27
    assert count_macs(named, shape(3, 3)) == 54


def test_macs_of_a_grouped_layer_do_not_depend_on_its_lowering():
    x, kernel = shape(2, 8, 8, 40), shape(3, 3, 4, 40)
    count = count_macs(partial(grouped_conv, groups=10), x, kernel)
    assert count == 2 * 64 * 40 * 9 * 4
    # The forms with zeros in their kernels cost more, when one is asked for by name.
    assert count_macs(partial(grouped_conv, groups=10, lowering="dense"), x, kernel) == 10 * count


def test_parameters_of_arrays_shapes_and_single_collections():
    model = nn.Sequential([nn.Dense(5), nn.BatchNorm(use_running_average=True)])
    variables = model.init(jax.random.key(0), jnp.ones((1, 3)))
    expected = 3 * 5 + 5 + 2 * 5
    assert count_parameters(variables) == expected
    assert count_parameters(variables["params"]) == expected
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 3)))
    assert count_parameters(shapes) == expected
    assert count_parameters({"params": {}}) == 0


class Stage(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        return self.inner(x), x

    def inner(self, x):
        return Conv(4, 3, groups=2, name="conv")(x)


class Chain(nn.Module):
    """Two stages, a parameter and products of its own, one of them of the weights alone."""

    @nn.compact
    def __call__(self, x, *, train, extra=0):
        x, _ = Stage(name="first")(x, train=train)
        x, _ = Stage(name="second")(x, train=train)
        gram = self.param("own", nn.initializers.ones, (4, 4))
        return (x @ (gram @ gram)).mean((1, 2)) + extra


@pytest.mark.parametrize("profile", [True, False])
def test_describe_rows(profile):
    model = Chain()
    layer = 36 * 4 * 9 * 2
    with nn.module.config.temp_flip_flag("profile", profile):
        found = describe(model, (6, 6, 4))
        deep = describe(model, (6, 6, 4), depth=2)
    assert found.stages == (
        Row("(model)", (4,), 16, 36 * 4 * 4),
        Row("first", (6, 6, 4), 72, layer),
        Row("second", (6, 6, 4), 72, layer),
    )
    assert found.weight_macs == 64
    assert (found.parameters, found.macs) == (160, 2 * layer + 576)
    assert [row.name for row in deep.stages] == ["(model)", "first/conv", "second/conv"]
    assert (deep.parameters, deep.macs) == (found.parameters, found.macs)


def test_describe_passes_arguments_on_and_refuses_no_depth():
    assert describe(Chain(), (6, 6, 4), extra=jnp.ones(4)).parameters == 160
    with pytest.raises(ValueError, match="depth"):
        describe(Chain(), (6, 6, 4), depth=0)


# torchvision's published counts, with its 224x224 input.
@pytest.mark.parametrize(
    ("name", "size", "parameters", "macs"),
    [
        ("resnet50", 224, 25_557_032, 4_089_184_256),
        ("resnext50_32x4d", 224, 25_028_904, 4_230_479_872),
        ("resnext50_32x4d", 160, 25_028_904, 2_159_411_200),
    ],
)
def test_known_networks(name, size, parameters, macs):
    found = describe(branchnets.create_model(name), (size, size, 3))
    assert (found.parameters, found.macs, found.weight_macs) == (parameters, macs, 0)


@pytest.mark.parametrize("name", branchnets.list_models("*digits*"))
def test_rows_add_up_for_registered_models(name):
    model, image_shape = branchnets.create_model(name), branchnets.default_image_shape(name)
    for depth in (1, 2, 3):
        found = describe(model, image_shape, depth=depth)
        assert sum(row.parameters for row in found.stages) == found.parameters
        assert sum(row.macs for row in found.stages) == found.macs
        assert all(row.name != "(model)" for row in found.stages)


def test_coded_network_adds_little_to_the_plain_one():
    coded = describe(branchnets.create_model("coded_resnext29_10x11d_cifar10"), (32, 32, 3))
    plain = describe(branchnets.create_model("resnext29_10x11d"), (32, 32, 3))
    assert coded.parameters == plain.parameters == 4_638_926
    # Energies: b' G b of every branch and position is at most D^2 + D products, in six blocks.
    energies = 3 * 10 * (256 * (22**2 + 22) + 64 * (44**2 + 44))
    assert 0 < coded.macs - plain.macs <= energies
    gram = 3 * 10 * (22**2 * 512 + 44**2 * 1024)
    assert coded.weight_macs == gram
    assert math.isclose(coded.macs, plain.macs, rel_tol=0.02)

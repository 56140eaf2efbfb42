"""Grouped batch norm over eight devices: no traffic but the parameter gradients' reduction."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from branchnets.nn.norm import BatchNorm, batch_norm

CHANNELS = 6
COLLECTIVE = re.compile(
    r"= (?P<shape>[^=]*?) (?:all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)"
    r"(?:-start)?\("
)


@pytest.fixture(scope="module")
def shardings():
    if jax.device_count() < 8:
        pytest.skip("needs 8 devices")
    mesh = Mesh(np.array(jax.devices()[:8]), ("data",))
    return (
        NamedSharding(mesh, PartitionSpec("data")),
        NamedSharding(mesh, PartitionSpec()),
    )


def collectives(compiled) -> list[str]:
    return [m["shape"] for m in COLLECTIVE.finditer(compiled.as_text())]


def values():
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(keys[0], (16, 4, 4, CHANNELS)) + 0.5
    dy = jax.random.normal(keys[1], x.shape)
    return x, jnp.linspace(0.5, 1.5, CHANNELS), jnp.linspace(-1, 1, CHANNELS), dy


def forward_backward(group_size, masked=False):
    def run(x, scale, bias, dy):
        mask = jnp.ones(x.shape[0]) if masked else None
        y, vjp = jax.vjp(
            lambda x, s, b: batch_norm(x, s, b, group_size=group_size, mask=mask, relu=True)[0],
            x,
            scale,
            bias,
        )
        return y, vjp(dy)

    return run


def compile_sharded(run, shardings):
    data, whole = shardings
    jitted = jax.jit(
        run,
        in_shardings=(data, whole, whole, data),
        out_shardings=(data, (data, whole, whole)),
    )
    return jitted.lower(*values()).compile()


@pytest.mark.parametrize("group_size", [1, 2])
@pytest.mark.parametrize("masked", [False, True])
def test_only_the_parameter_gradients_are_reduced(shardings, group_size, masked):
    compiled = compile_sharded(forward_backward(group_size, masked), shardings)
    found = collectives(compiled)
    # The gradients of scale and bias: one reduction together or one each, of [C] and no more.
    numbers = [re.findall(r"f32\[([\d,]*)\]", shape) for shape in found]
    assert sorted(sum(numbers, [])) == [str(CHANNELS)] * 2, found


def test_the_search_sees_the_traffic_of_global_statistics(shardings):
    compiled = compile_sharded(forward_backward(None), shardings)
    sizes = sum([re.findall(r"f32\[([\d,]*)\]", s) for s in collectives(compiled)], [])
    assert len(sizes) > 2


@pytest.mark.parametrize("group_size", [2, 4, None])
def test_sharded_equals_single_device(shardings, group_size):
    run = forward_backward(group_size)
    got = compile_sharded(run, shardings)(*_placed(shardings))
    want = jax.jit(run)(*values())
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-5), got, want)


def _placed(shardings):
    data, whole = shardings
    return [jax.device_put(v, s) for v, s in zip(values(), (data, whole, whole, data), strict=True)]


def test_group_of_one_device_is_that_devices_statistics(shardings):
    """Group size B/8 is what a device would compute by itself."""
    x, scale, bias, _ = values()
    data, _ = shardings
    y = jax.jit(lambda x: batch_norm(x, scale, bias, group_size=2)[0])(jax.device_put(x, data))
    for shard in y.addressable_shards:
        alone = batch_norm(x[shard.index[0]], scale, bias)[0]
        np.testing.assert_allclose(shard.data, alone, rtol=1e-5, atol=1e-5)


def test_running_averages_are_the_only_forward_traffic(shardings):
    data, whole = shardings
    x = values()[0]
    model = BatchNorm(group_size=2)
    variables = model.init(jax.random.key(0), x, train=False)
    run = jax.jit(
        lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]),
        in_shardings=(whole, data),
        out_shardings=(data, whole),
    )
    found = collectives(run.lower(variables, x).compile())
    numbers = sum([re.findall(r"f32\[([\d,]*)\]", shape) for shape in found], [])
    assert sorted(numbers) == [str(CHANNELS)] * 2, found

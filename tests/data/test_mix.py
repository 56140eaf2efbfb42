"""Mixup and cutmix: shares, boxes, pairs, and no word between devices."""

from __future__ import annotations

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from branchnets.data.base import Dataset, Split
from branchnets.data.device import mix
from branchnets.data.device.augment import Augment
from branchnets.data.device.finish import Finish
from branchnets.errors import DataError

KEY = jax.random.key(0)
mixed = jax.jit(mix.mix, static_argnums=(3, 4))
box_outside = jax.jit(mix.box_outside, static_argnums=2)


def words(compiled):
    """The collectives of a compiled function."""
    names = r"all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    return re.findall(names, compiled.as_text())


def numbered(batch, height=8, width=8):
    """Images of one colour each, of values that no two share."""
    colours = jnp.arange(1.0, batch + 1)[:, None, None, None]
    return jnp.broadcast_to(colours, (batch, height, width, 3))


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 4.0])
def test_shares_are_beta_distributed(alpha):
    draws = np.asarray(mix.symmetric_beta(KEY, alpha, 4000), np.float64)
    assert np.isfinite(draws).all() and draws.min() >= 0 and draws.max() <= 1
    # Float32 rounds what is nearly 0 or 1 to it: compared on the symmetric inner part.
    points = np.linspace(0.01, 0.99, 99)
    empirical = (draws[:, None] <= points).mean(0)
    gap = np.abs(empirical - scipy.stats.beta(alpha, alpha).cdf(points)).max()
    assert gap < 1.95 / len(draws) ** 0.5  # Kolmogorov's bound: p = 0.001
    assert draws.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.06)


def test_partners_are_neighbours_and_an_odd_one_has_none():
    np.testing.assert_array_equal(mix.partners(jnp.arange(6)), [1, 0, 3, 2, 5, 4])
    with pytest.raises(DataError, match="in pairs, and 3 is odd; give an even batch_size"):
        mix.mix(KEY, numbered(3), jnp.arange(3), 0.2, 0.0)


def test_the_box_and_its_exact_area_by_hand():
    # 6 x 8 images: a quarter to be replaced is a box of 3 x 4.
    centres = jnp.array([[3, 4], [0, 0], [5, 7], [3, 4], [3, 4]])
    keep = jnp.array([0.75, 0.75, 0.75, 1.0, 0.0])
    outside, left = box_outside(centres, keep, (6, 8))
    boxes = [np.argwhere(~box) for box in np.asarray(outside)]
    # (rows, columns) from start to end: the middle, two corners cut at the edge, none, all.
    for box, rows, columns in (
        (boxes[0], (2, 5), (2, 6)),
        (boxes[1], (0, 2), (0, 2)),
        (boxes[2], (4, 6), (5, 8)),
        (boxes[4], (0, 6), (0, 8)),
    ):
        wanted = [(y, x) for y in range(*rows) for x in range(*columns)]
        np.testing.assert_array_equal(box, wanted)
    assert not len(boxes[3])
    np.testing.assert_allclose(left, 1 - np.array([12, 4, 6, 0, 48]) / 48, rtol=1e-6)


def test_what_boxes_keep_on_average():
    # The mean over all centres, counted pixel by pixel.
    size, keep = (5, 8), 0.4
    rows, columns = np.divmod(np.arange(40), 8)
    centres = jnp.stack([rows, columns], axis=1)
    _, left = box_outside(centres, jnp.full(40, keep), size)
    sides = [round(length * 0.6**0.5) for length in size]

    def seen(length, side):
        starts = np.arange(length) - side // 2
        return np.mean([len(set(range(s, s + side)) & set(range(length))) for s in starts])

    area = seen(5, sides[0]) * seen(8, sides[1])
    assert float(left.mean()) == pytest.approx(1 - area / 40, rel=1e-6)


def test_mixup_blends_an_example_with_its_neighbour():
    images, labels = numbered(64), jnp.arange(64)
    found = mixed(KEY, images, labels, 0.4, 0.0)
    share = np.asarray(found["share"])
    colours = np.arange(1.0, 65)
    wanted = share * colours + (1 - share) * colours[np.arange(64) ^ 1]
    np.testing.assert_allclose(
        found["image"], np.broadcast_to(wanted[:, None, None, None], images.shape), rtol=1e-5
    )
    np.testing.assert_array_equal(found["label"], labels)
    np.testing.assert_array_equal(found["other_label"], np.arange(64) ^ 1)
    assert len(np.unique(share)) > 60 and found["share"].dtype == jnp.float32


def test_cutmix_takes_pixels_of_one_or_the_other_in_exactly_their_shares():
    images = numbered(400, 6, 10)
    found = mixed(KEY, images, jnp.arange(400), 0.0, 1.0)
    out, own = np.asarray(found["image"]), np.asarray(images)
    kept = out == own
    assert np.array_equal(out[~kept], own[np.arange(400) ^ 1][~kept])
    np.testing.assert_allclose(found["share"], kept.mean((1, 2, 3)), atol=1e-6)
    # Boxes of uniform area, uniformly placed: the mean share is what a plain simulation gives.
    random = np.random.RandomState(0)
    centres = np.stack([random.randint(0, n, 20000) for n in (6, 10)], axis=1)
    _, left = box_outside(jnp.asarray(centres), jnp.asarray(random.rand(20000)), (6, 10))
    spread = float(left.std())
    assert abs(float(found["share"].mean() - left.mean())) < 4 * spread / 400**0.5


def test_with_both_half_of_the_examples_get_each():
    found = mixed(KEY, numbered(2000), jnp.arange(2000), 1.0, 1.0)
    own, other = np.arange(1.0, 2001), np.arange(2000) + 1.0 + np.where(np.arange(2000) % 2, -1, 1)
    pixels = np.asarray(found["image"])[..., 0].reshape(2000, -1)
    boxed = ((pixels == own[:, None]) | (pixels == other[:, None])).all(1)
    assert abs(boxed.sum() - 1000) < 4 * 500**0.5
    share = np.asarray(found["share"])
    # Whichever it was, the share is that of its own pixels.
    mean = share * own + (1 - share) * other
    np.testing.assert_allclose(pixels.mean(1), mean, rtol=1e-4)


def toy():
    """A data set of 32 images, and both kinds of mixing."""
    images = np.random.RandomState(0).randint(0, 256, (32, 8, 8, 3)).astype(np.uint8)
    split = Split(images, np.arange(32, dtype=np.int32))
    names = tuple(map(str, range(32)))
    dataset = Dataset("toy", names, {"train": split}, (0.5,) * 3, (0.2,) * 3)
    return split, partial(Finish, dataset, Augment(mixup=0.2, cutmix=1.0))


def test_eight_devices_give_what_one_gives_without_a_word_between_them():
    split, finish = toy()
    alone = jax.jit(finish())(KEY, split.images, split.labels)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    arguments = (KEY, *(jax.device_put(x, rows) for x in (split.images, split.labels)))
    compiled = jax.jit(finish(mesh)).lower(*arguments).compile()
    assert not words(compiled)
    backwards = jax.jit(lambda x: x[::-1], out_shardings=rows).lower(arguments[2]).compile()
    assert words(backwards)  # which is what other partners would cost
    together = compiled(*arguments)
    assert set(alone) == {"image", "label", "other_label", "share"}
    for name, value in alone.items():
        assert together[name].sharding.is_equivalent_to(rows, value.ndim)
        np.testing.assert_array_equal(together[name], value)


@pytest.mark.tpu_compile
def test_eight_tpu_cores_need_no_word_between_them_either():
    pytest.importorskip("libtpu")
    from jax.experimental import topologies

    topology = topologies.get_topology_desc(platform="tpu", topology_name="v2:2x2")
    mesh = Mesh(np.array(topology.devices).reshape(-1), ("data",))
    rows, copies = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
    split, finish = toy()
    arguments = (
        jax.ShapeDtypeStruct(KEY.shape, KEY.dtype, sharding=copies),
        jax.ShapeDtypeStruct(split.images.shape, jnp.uint8, sharding=rows),
        jax.ShapeDtypeStruct(split.labels.shape, jnp.int32, sharding=rows),
    )
    traced = jax.jit(finish(mesh)).trace(*arguments)
    assert not words(traced.lower(lowering_platforms=("tpu",)).compile())


def test_mixing_is_off_by_default_and_alphas_are_not_negative():
    images = np.zeros((3, 8, 8, 3), np.uint8)
    dataset = Dataset(
        "toy", ("a",), {"train": Split(images, np.zeros(3, int))}, (0.5,) * 3, (0.2,) * 3
    )
    assert set(Finish(dataset, Augment())(KEY, images, jnp.zeros(3, int))) == {"image", "label"}
    for alphas in ({"mixup": -0.1}, {"cutmix": float("nan")}):
        with pytest.raises(DataError, match="alphas of beta distributions"):
            Augment(**alphas)

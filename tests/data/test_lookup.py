"""The forms of looking up pixels give the same integers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from branchnets.data.device import lookup, randaugment


@pytest.fixture(scope="module")
def image():
    return jax.random.randint(jax.random.key(0), (7, 9, 3), 0, 256)


def test_corners(image):
    rows = jax.random.randint(jax.random.key(1), (2, 5, 4), 0, 7)
    columns = jax.random.randint(jax.random.key(2), (2, 5, 4), 0, 9)
    wanted = lookup.corners_by_gathering(image, rows, columns)
    assert wanted.shape == (2, 2, 5, 4, 3)
    np.testing.assert_array_equal(wanted[0, 1, 2, 3], image[rows[0, 2, 3], columns[1, 2, 3]])
    several = [jnp.stack([a, a[::-1]]) for a in (image, rows, columns)]  # windows are all of it
    found = jax.vmap(lambda *one: lookup.corners_by_products(*one, 1.0))(*several)
    np.testing.assert_array_equal(found, jax.vmap(lookup.corners_by_gathering)(*several))


def test_warps_by_products(monkeypatch):
    image = jax.random.randint(jax.random.key(4), (70, 50, 3), 0, 256)
    matrices = randaugment.magnitude_tables(10, 70, 50).matrix.reshape(-1, 6)

    def warped():
        warp = functools.partial(randaugment._warp, image, fill=jnp.array([1, 2, 3]))
        return jax.jit(jax.vmap(warp))(matrices)

    wanted = warped()
    monkeypatch.setattr(lookup, "corners", lookup.corners_by_products)
    np.testing.assert_array_equal(warped(), wanted)


def test_no_warp_reaches_further_than_its_windows():
    for magnitude in np.linspace(0, 10, 21):
        matrix = randaugment.magnitude_tables(magnitude, 70, 50).matrix
        for row in (matrix[..., :2], matrix[..., 3:5]):
            assert np.abs(row).sum(-1).max() <= randaugment._STRETCH


def test_tables_and_histograms(image):
    table = jax.random.randint(jax.random.key(3), (3, 256), 0, 256)
    wanted = lookup.in_table_by_gathering(table, image)
    assert wanted[2, 4, 1] == table[1, image[2, 4, 1]]
    np.testing.assert_array_equal(lookup.in_table_by_comparing(table, image), wanted)
    counts = lookup.histogram_by_scattering(image)
    assert counts.shape == (3, 256) and counts[2, image[0, 0, 2]] >= 1
    np.testing.assert_array_equal(counts.sum(1), [63, 63, 63])
    np.testing.assert_array_equal(lookup.histogram_by_comparing(image), counts)
    np.testing.assert_array_equal(lookup.materialised(table), table)

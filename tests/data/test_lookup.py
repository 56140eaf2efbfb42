"""The forms of looking up pixels give the same integers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from branchnets.data.device import lookup


@pytest.fixture(scope="module")
def image():
    return jax.random.randint(jax.random.key(0), (7, 9, 3), 0, 256)


def test_corners(image):
    rows = jax.random.randint(jax.random.key(1), (2, 5, 4), 0, 7)
    columns = jax.random.randint(jax.random.key(2), (2, 5, 4), 0, 9)
    wanted = lookup.corners_by_gathering(image, rows, columns)
    assert wanted.shape == (2, 2, 5, 4, 3)
    np.testing.assert_array_equal(wanted[0, 1, 2, 3], image[rows[0, 2, 3], columns[1, 2, 3]])
    np.testing.assert_array_equal(lookup.corners_by_products(image, rows, columns), wanted)
    several = [jnp.stack([a, a[::-1]]) for a in (image, rows, columns)]
    found = jax.vmap(lookup.corners_by_products)(*several)
    np.testing.assert_array_equal(found, jax.vmap(lookup.corners)(*several))


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

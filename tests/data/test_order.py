"""Order and random numbers as pure functions."""

import numpy as np
import pytest

from branchnets.data.streamed import order
from branchnets.errors import DataError


def test_the_order_of_an_epoch_is_fixed_for_ever():
    assert order.permutation(0, 0, 8).tolist() == [1, 2, 0, 6, 4, 5, 7, 3]
    np.testing.assert_allclose(order.uniforms(1, 2**33, 3, 2), [0.76738387, 0.27212111], rtol=1e-7)


def test_orders_differ_by_seed_and_epoch_and_are_permutations():
    seen = [tuple(order.permutation(seed, epoch, 50)) for seed in (0, 1, -1) for epoch in (0, 1)]
    assert len(set(seen)) == 6 and all(sorted(one) == list(range(50)) for one in seen)


def test_random_numbers_differ_by_seed_step_and_row():
    drawn = {tuple(order.uniforms(*key, 3)) for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]}
    assert len(drawn) == 4
    np.testing.assert_array_equal(order.uniforms(3, 2**33, 5, 4), order.uniforms(3, 2**33, 5, 4))
    assert not np.array_equal(order.uniforms(3, 2**33, 5, 4), order.uniforms(3, 0, 5, 4))


def test_rows_of_hosts_are_consecutive_and_make_up_the_batch():
    assert [*order.host_rows(12, 0, 3), *order.host_rows(12, 1, 3), *order.host_rows(12, 2, 3)] == [
        *range(12)
    ]
    with pytest.raises(DataError, match="12 does not divide over 5 processes"):
        order.host_rows(12, 0, 5)
    assert [order.chunk_size(rows, 16) for rows in (1, 13, 17, 48, 100)] == [1, 13, 1, 16, 10]

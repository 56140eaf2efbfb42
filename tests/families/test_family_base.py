"""What every family shares: metrics by hand, and random numbers by purpose."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from branchnets import families
from branchnets.engine import config as configs
from branchnets.families import base


def test_metrics_count_each_example_once_and_padding_never():
    logits = jnp.array([[3.0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 9.0], [1.0] * 7])
    batch = {"label": jnp.array([0, 0, 3]), "mask": jnp.array([1.0, 1.0, 0.0])}
    found = base.classification_metrics(logits, batch)
    assert [float(x) for x in found["accuracy"]] == [1, 2]
    # Of six equal logits the first by index counts as ranked above the others.
    assert [float(x) for x in found["top5_accuracy"]] == [2, 2]
    wanted = -np.log(np.exp(3) / (np.exp(3) + np.exp(1) + 5)) - np.log(1 / (6 + np.exp(9)))
    assert float(found["cross_entropy"][0]) == pytest.approx(wanted, rel=1e-6)


def test_a_constant_output_is_not_always_right():
    batch = {"label": jnp.arange(10)}
    found = base.classification_metrics(jnp.zeros((10, 10)), batch)
    assert float(found["accuracy"][0]) == 1 and float(found["top5_accuracy"][0]) == 5


def test_what_is_not_a_number_is_not_right():
    batch = {"label": jnp.arange(10)}
    found = base.classification_metrics(jnp.full((10, 10), jnp.nan), batch)
    assert float(found["accuracy"][0]) == 0 and float(found["top5_accuracy"][0]) == 0


def test_few_classes_have_no_top5():
    assert "top5_accuracy" not in base.classification_metrics(
        jnp.zeros((2, 5)), {"label": jnp.zeros(2, jnp.int32)}
    )


def test_sums_keep_the_axes_of_a_metric():
    total, count = base.summed(jnp.ones((3, 2, 4)), jnp.array([1.0, 0, 1]))
    assert total.shape == (2, 4) and (total == 2).all() and count == 2


def test_purposes_do_not_share_random_numbers():
    key = jax.random.key(0)
    draws = {p: jax.random.bits(base.purpose_key(key, p)).item() for p in ("a", "b", "augment")}
    assert len(set(draws.values())) == 3
    assert draws["a"] == jax.random.bits(base.purpose_key(key, "a")).item()


def test_cross_entropy_gradient_is_softmax_minus_one_hot():
    logits = jnp.array([[0.5, -1.0, 2.0]])
    gradient = jax.grad(lambda x: base.cross_entropy(x, jnp.array([1]))[0])(logits)
    np.testing.assert_allclose(gradient, jax.nn.softmax(logits) - jnp.eye(3)[1], atol=1e-6)


def test_an_unknown_family_names_the_known_ones():
    with pytest.raises(ValueError, match="Did you mean 'coded'.*Known: coded, maskconnect, plain"):
        families.config_fields("code")
    with pytest.raises(ValueError, match="unknown family"):
        configs.base("anytimes")

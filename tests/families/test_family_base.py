"""What every family shares: metrics by hand, and random numbers by purpose."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from branchnets import data, families
from branchnets.engine import config as configs
from branchnets.families import base, objectives
from branchnets.families.maskconnect.family import MaskConnectFamily
from branchnets.families.plain.family import PlainFamily


def test_metrics_count_each_example_once_and_padding_never():
    logits = jnp.array([[3.0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 9.0], [1.0] * 7])
    batch = {"label": jnp.array([0, 0, 3]), "mask": jnp.array([1.0, 1.0, 0.0])}
    found = objectives.classification_metrics(logits, batch)
    assert [float(x) for x in found["accuracy"]] == [1, 2]
    # Of six equal logits the first by index counts as ranked above the others.
    assert [float(x) for x in found["top5_accuracy"]] == [2, 2]
    wanted = -np.log(np.exp(3) / (np.exp(3) + np.exp(1) + 5)) - np.log(1 / (6 + np.exp(9)))
    assert float(found["cross_entropy"][0]) == pytest.approx(wanted, rel=1e-6)


def test_a_constant_output_is_not_always_right():
    batch = {"label": jnp.arange(10)}
    found = objectives.classification_metrics(jnp.zeros((10, 10)), batch)
    assert float(found["accuracy"][0]) == 1 and float(found["top5_accuracy"][0]) == 5


def test_what_is_not_a_number_is_not_right():
    batch = {"label": jnp.arange(10)}
    found = objectives.classification_metrics(jnp.full((10, 10), jnp.nan), batch)
    assert float(found["accuracy"][0]) == 0 and float(found["top5_accuracy"][0]) == 0


def test_few_classes_have_no_top5():
    assert "top5_accuracy" not in objectives.classification_metrics(
        jnp.zeros((2, 5)), {"label": jnp.zeros(2, jnp.int32)}
    )


def test_sums_keep_the_axes_of_a_metric():
    total, count = objectives.summed(jnp.ones((3, 2, 4)), jnp.array([1.0, 0, 1]))
    assert total.shape == (2, 4) and (total == 2).all() and count == 2


def test_purposes_do_not_share_random_numbers():
    key = jax.random.key(0)
    draws = {p: jax.random.bits(base.purpose_key(key, p)).item() for p in ("a", "b", "augment")}
    assert len(set(draws.values())) == 3
    assert draws["a"] == jax.random.bits(base.purpose_key(key, "a")).item()


def test_cross_entropy_gradient_is_softmax_minus_one_hot():
    logits = jnp.array([[0.5, -1.0, 2.0]])
    gradient = jax.grad(lambda x: objectives.cross_entropy(x, jnp.array([1]))[0])(logits)
    np.testing.assert_allclose(gradient, jax.nn.softmax(logits) - jnp.eye(3)[1], atol=1e-6)


def test_label_smoothing_by_hand():
    # log softmax of (log 1, log 2, log 5) is log of (1, 2, 5) / 8.
    logits = jnp.log(jnp.array([[1.0, 2.0, 5.0]]))
    probabilities = np.array([1, 2, 5]) / 8
    target = 0.9 * np.eye(3)[1] + 0.1 / 3
    found = objectives.cross_entropy(logits, jnp.array([1]), 0.1)
    assert float(found[0]) == pytest.approx(-(target * np.log(probabilities)).sum(), rel=1e-6)
    gradient = jax.grad(lambda x: objectives.cross_entropy(x, jnp.array([1]), 0.1)[0])(logits)
    np.testing.assert_allclose(gradient[0], probabilities - target, atol=1e-6)
    # Against the installed implementation.
    logits = jax.random.normal(jax.random.key(0), (8, 7))
    labels = jnp.arange(8) % 7
    soft = optax.smooth_labels(jax.nn.one_hot(labels, 7), 0.3)
    np.testing.assert_allclose(
        objectives.cross_entropy(logits, labels, 0.3),
        optax.softmax_cross_entropy(logits, soft),
        rtol=1e-5,
    )


def test_a_mixed_example_has_both_labels_in_their_shares():
    logits = jax.random.normal(jax.random.key(0), (3, 7))
    batch = {
        "label": jnp.array([0, 1, 2]),
        "other_label": jnp.array([3, 1, 5]),
        "share": jnp.array([0.25, 0.6, 1.0]),
    }
    first, other = (np.eye(7)[np.asarray(batch[name])] for name in ("label", "other_label"))
    share = np.asarray(batch["share"])[:, None]
    target = share * first + (1 - share) * other
    family = base.Family(model=None, label_smoothing=0.1)
    wanted = optax.softmax_cross_entropy(logits, optax.smooth_labels(target, 0.1)).mean()
    assert float(family.class_loss(logits, batch)) == pytest.approx(float(wanted), rel=1e-5)
    # The metrics are those of the mixed target too, without smoothing.
    sure = 9.0 * jax.nn.one_hot(jnp.array([3, 1, 2]), 7)
    found = objectives.classification_metrics(sure, batch)
    assert [float(x) for x in found["accuracy"]] == pytest.approx([0.75 + 1 + 1, 3])
    wanted = optax.softmax_cross_entropy(sure, target).sum()
    assert float(found["cross_entropy"][0]) == pytest.approx(float(wanted), rel=1e-5)
    # Any trailing axes, and nothing at all without shares.
    words = jnp.arange(14.0).reshape(7, 2)
    np.testing.assert_allclose(
        objectives.over_labels(lambda labels: words[labels], batch), target @ words, rtol=1e-6
    )
    alone = {"label": batch["label"]}
    np.testing.assert_array_equal(objectives.over_labels(lambda x: words[x], alone), words[:3])


class Answers:
    """A network that says the same whatever it is shown."""

    logits = jax.random.normal(jax.random.key(1), (2, 3))

    def apply(self, variables, images, **_):
        return SimpleNamespace(logits=self.logits), {}


@pytest.mark.parametrize("make", [PlainFamily, partial(MaskConnectFamily, image_shape=(8, 8, 1))])
def test_what_is_minimised_is_the_smoothed_loss_of_the_mixed_labels(make):
    family = make(Answers(), label_smoothing=0.2)
    context = base.Context(jnp.zeros((), int), base.Phase("train", 1), jax.random.key(0))
    batch = {"image": jnp.zeros((2, 8, 8, 1)), "label": jnp.array([0, 2])}
    mixed = {**batch, "other_label": jnp.array([1, 1]), "share": jnp.array([0.3, 0.9])}
    for given, target in (
        (batch, [[1.0, 0, 0], [0, 0, 1]]),
        (mixed, [[0.3, 0.7, 0], [0, 0.1, 0.9]]),
    ):
        soft = optax.smooth_labels(jnp.array(target), 0.2)
        wanted = optax.softmax_cross_entropy(Answers.logits, soft).mean()
        terms, _ = family.loss({}, {}, given, context)
        assert float(terms["class"]) == pytest.approx(float(wanted), rel=1e-5)


@pytest.mark.parametrize("family", ["plain", "coded", "maskconnect"])
def test_every_family_takes_the_smoothing_of_its_config(family):
    names = {"plain": "resnext_digits", "coded": "coded_resnext_digits"}
    config = configs.base(family)
    config.model.name = names.get(family, "maskconnect_digits")
    spec = data.DataSpec((16, 16, 1), 10, tuple("abcdefghij"))
    assert families.create(config, spec).label_smoothing == 0
    config.loss.label_smoothing = 0.1
    assert families.create(config, spec).label_smoothing == 0.1


def test_an_unknown_family_names_the_known_ones():
    with pytest.raises(ValueError, match="Did you mean 'coded'.*Known: coded, maskconnect, plain"):
        families.config_fields("code")
    with pytest.raises(ValueError, match="unknown family"):
        configs.base("anytimes")

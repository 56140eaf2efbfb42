"""The coded family: its loss against Eq. 6, its metrics, its schemes, its summary."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from branchnets import data, families
from branchnets.engine import config as configs
from branchnets.families import base, objectives
from branchnets.families.coded import losses
from branchnets.families.coded.energy_map import render_energy_map
from branchnets.families.coded.family import energy_on_code

SPEC = data.DataSpec((16, 16, 1), 10, tuple("abcdefghij"))


def create(**overrides):
    config = configs.base("coded")
    config.model.name = "coded_resnext_digits"
    return families.create(configs.apply_overrides(config, overrides), SPEC)


@pytest.fixture(scope="module")
def family():
    return create(**{"model.active": ((10,), (5,), (3,))})


@pytest.fixture(scope="module")
def variables(family):
    return jax.jit(family.model.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 1)))


@pytest.fixture(scope="module")
def batch():
    images = jax.random.normal(jax.random.key(1), (4, 16, 16, 1))
    return {"image": images, "label": jnp.array([3, 1, 4, 1])}


def context():
    return base.Context(jnp.zeros((), jnp.int32), base.Phase("train", 1), jax.random.key(5))


def test_the_total_loss_is_equation_6(family, variables, batch):
    terms, aux = family.loss(variables, {}, batch, context())
    output, _ = family.model.apply(
        variables,
        batch["image"],
        train=True,
        mutable=["batch_stats"],
        rngs={"drop": context().rng("drop")},
    )
    wanted = 0.0
    for block, name in (("stage3/block0", "5of10"), ("stage4/block0", "3of10")):
        scheme = family.schemes[block]
        assert scheme.name == f"cifar10_{name}"
        words = scheme.codewords[np.asarray(batch["label"])]
        energies = np.asarray(output.energies[block])
        wanted += np.mean((words.mean(1, keepdims=True) * energies - words) ** 4)
    assert float(terms["code"]) == pytest.approx(6.0 * wanted, rel=1e-5)
    cross_entropy = objectives.cross_entropy(output.logits, batch["label"]).mean()
    assert float(terms["class"]) == pytest.approx(float(cross_entropy), rel=1e-5)
    assert aux.metrics["coding_loss/stage3/block0"][1] == 4


def mixed(batch, share):
    return {**batch, "other_label": jnp.array([1, 3, 0, 9]), "share": jnp.full(4, share)}


def test_the_coding_loss_of_a_mixed_example_is_the_mean_over_its_labels(family, variables, batch):
    @jax.jit
    def loss(batch):
        return family.loss(variables, {}, batch, context())[0]

    def terms(batch):
        return {name: float(value) for name, value in loss(batch).items()}

    other = {**batch, "label": mixed(batch, 0.3)["other_label"]}
    first, second, both = terms(batch), terms(other), terms(mixed(batch, 0.3))
    assert set(both) == {"class", "code"} and first["code"] != second["code"]
    for name, value in both.items():
        assert value == pytest.approx(0.3 * first[name] + 0.7 * second[name], rel=1e-5)


def test_footnote_5_lets_the_branches_of_both_labels_learn_in_their_shares(batch):
    family = create(**{"model.active": ((10,), (5,), (3,)), "coded.block_gradients": True})
    block = "stage4/block0"
    words = family.schemes[block].codewords
    found = family._may_learn(block, mixed(batch, 0.25))
    wanted = 0.25 * words[[3, 1, 4, 1]] + 0.75 * words[[1, 3, 0, 9]]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_footnote_5_blocks_instead_of_penalising(variables, batch):
    family = create(**{"model.active": ((10,), (5,), (3,)), "coded.block_gradients": True})
    gradient, terms = jax.grad(
        lambda p: (lambda t: (sum(t.values()), t))(
            family.loss({**variables, "params": p}, {}, batch, context())[0]
        ),
        has_aux=True,
    )(variables["params"])
    assert set(terms) == {"class"}
    # The last batch norm of a new block is 0, so only the scales of that norm get a gradient yet.
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


def test_evaluation_metrics_are_exact_sums(family, variables, batch):
    mode = family.eval_modes()[""]
    padded = {
        "image": jnp.concatenate([batch["image"], jnp.zeros((2, 16, 16, 1))]),
        "label": jnp.concatenate([batch["label"], jnp.zeros(2, jnp.int32)]),
        "mask": jnp.array([1.0, 1, 1, 1, 0, 0]),
    }
    whole, cut = (mode(variables, {}, b, jax.random.key(0)) for b in (batch, padded))
    for name, (total, count) in whole.items():
        np.testing.assert_allclose(total, cut[name][0], atol=1e-5, err_msg=name)
        np.testing.assert_array_equal(count, cut[name][1])
    energies = family.model.apply(variables, batch["image"]).energies["stage4/block0"]
    total, count = whole["energy_map/stage4/block0"]
    np.testing.assert_allclose(total[1], energies[1] + energies[3], rtol=1e-5)
    assert count[:, 0].tolist() == [0, 2, 0, 1, 1, 0, 0, 0, 0, 0]
    words = jnp.asarray(family.schemes["stage4/block0"].codewords)
    predicted, _ = losses.decode(energies, words)
    early = whole["early_accuracy/stage4/block0"][0]
    assert float(early) == float(jnp.sum(predicted == batch["label"]))


def test_a_chosen_scheme_is_used_for_the_blocks_of_its_ratio(tmp_path):
    words = np.eye(10, dtype=int) + np.roll(np.eye(10, dtype=int), 1, 1)
    words += np.roll(np.eye(10, dtype=int), 2, 1)
    path = tmp_path / "mine.txt"
    path.write_text("\n".join("".join(map(str, row)) for row in words))
    family = create(**{"coded.schemes": (str(path),)})
    names = {block: scheme.name for block, scheme in family.schemes.items()}
    assert names["stage4/block1"] == str(path) and names["stage3/block0"] == "cifar10_5of10"


def test_schemes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="has 100 classes.*needs 10"):
        create(**{"coded.schemes": ("cifar100_8of20",), "model.active": ((10,), (8,), (8,))})
    with pytest.raises(ValueError, match="for blocks of 5 active branches.*has none"):
        create(**{"coded.schemes": ("cifar10_5of10",), "model.active": ((10,), (3,), (3,))})
    with pytest.raises(
        ValueError, match="cifar10_3of10 and cifar10_3of10 are both for blocks of 3"
    ):
        create(**{"coded.schemes": ("cifar10_3of10", "cifar10_3of10")})
    with pytest.raises(ValueError, match="no coding scheme for 10 classes, 10 branches, 4 active"):
        create(**{"model.active": ((10,), (4,), (3,))})


def test_energy_on_code_is_one_on_the_code_and_the_ratio_without():
    words = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0]])
    assert energy_on_code(2.0 * words, words) == pytest.approx(1)
    assert energy_on_code(np.ones((3, 4)), words) == pytest.approx(0.5)
    unseen = np.where(np.arange(3)[:, None] == 2, np.nan, 2.0 * words)
    assert energy_on_code(unseen, words) == pytest.approx(1)


def test_the_picture_shows_the_code(family):
    scheme = family.schemes["stage4/block0"]
    perfect = scheme.codewords * (10 / 3)
    text = render_energy_map(perfect, scheme, SPEC.class_names, "stage4/block0")
    for name, line in zip(SPEC.class_names, text.splitlines()[2:], strict=True):
        measured, code = line[5:15], line[-10:]
        assert line.split()[0] == name and measured.replace(" ", "·") == code


def test_without_coded_blocks_there_is_nothing_to_sum_up():
    family = create(**{"model.active": ((10,), (10, 10), (10, 10))})
    assert family.summary({}) == ({"early_decoding_accuracy": {}}, "")

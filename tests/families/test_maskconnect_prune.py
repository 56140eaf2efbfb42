"""Pruning: what goes, that the rest computes the same, what it saves, what is refused."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import branchnets
from branchnets.counting import count_parameters, describe
from branchnets.errors import ConfigError
from branchnets.families.maskconnect import connectivity, prune
from branchnets.families.maskconnect.model import MaskConnectNet, ModuleSpec

IMAGES = jax.random.normal(jax.random.key(1), (3, 4, 4, 1))


def random_masks(random, counts, fan_in):
    """0/1 [N, N before] of every module but the first, ``fan_in`` ones a row."""
    chosen = []
    for before, branches in itertools.pairwise(counts):
        rows = [random.permutation(before)[:fan_in] for _ in range(branches)]
        chosen.append(np.stack([np.isin(np.arange(before), row) for row in rows]).astype(float))
    return chosen


@pytest.mark.parametrize("seed", range(8))
def test_what_stays_is_what_a_path_to_the_output_goes_through(seed):
    random = np.random.default_rng(seed)
    for _ in range(25):
        counts = random.integers(2, 9, size=random.integers(2, 7)).tolist()
        fan_in = int(random.integers(1, min(counts) + 1))
        chosen = random_masks(random, counts, fan_in)
        names = [f"m{i}" for i in range(len(counts))]
        modules = {name: ModuleSpec(4, n, 1) for name, n in zip(names, counts, strict=True)}
        kept = connectivity.alive(modules, dict(zip(names[1:], chosen, strict=True)))
        # The number of paths from every branch to the end, by products of the masks.
        paths = np.ones(counts[-1])
        assert kept[names[-1]].tolist() == list(range(counts[-1]))
        for name, mask in zip(names[-2::-1], chosen[::-1], strict=True):
            paths = paths @ mask
            assert kept[name].tolist() == np.flatnonzero(paths).tolist()


#: Branches of the modules of :func:`network`.
COUNTS = ((4, 3), (5, 4))


def network(fan_in, aggregate="sum", projection=False):
    """Without a projection in any shortcut, or with one that the branches of stage3 share."""
    stages = tuple(
        tuple(
            ModuleSpec(8 if s and projection else 4, n, 2, stride=1 + (s and not b))
            for b, n in enumerate(stage)
        )
        for s, stage in enumerate(COUNTS)
    )
    return MaskConnectNet(stages, 10, fan_in=fan_in, aggregate=aggregate, stem_channels=4)


@functools.cache
def weights(projection=False):
    """Variables of :func:`network` in which nothing is 0 or 1 by initialisation; no masks."""
    model = network(1, projection=projection)
    variables = dict(jax.jit(model.init)(jax.random.key(0), IMAGES[:1]))
    del variables["masks"]
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    moved = [x + jnp.abs(jax.random.normal(k, x.shape)) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, moved)


def frozen(fan_in, seed, projection=False):
    """Variables with random frozen masks."""
    counts = [n for stage in COUNTS for n in stage]
    chosen = random_masks(np.random.default_rng(seed), counts, fan_in)
    names = list(network(1).modules())[1:]
    stored = {n: jnp.asarray(m, jnp.float32) for n, m in zip(names, chosen, strict=True)}
    return {**weights(projection), "masks": stored}


@functools.partial(jax.jit, static_argnums=0)
def logits(model, variables, images):
    return model.apply(variables, images).logits


def assert_same_logits(fan_in, aggregate, seed):
    model, variables = network(fan_in, aggregate), frozen(fan_in, seed)
    small, own, kept = prune.prune_network(model, variables)
    full = logits(model, variables, IMAGES)
    assert np.ptp(full) > 0
    np.testing.assert_allclose(
        logits(small, own, IMAGES), full, rtol=0, atol=1e-5 * float(np.abs(full).max())
    )
    return kept


@pytest.mark.parametrize(("fan_in", "aggregate"), [(1, "sum"), (1, "mean"), (2, "mean")])
def test_a_pruned_network_computes_the_same(fan_in, aggregate):
    kept = assert_same_logits(fan_in, aggregate, seed=3)
    counts = [len(indices) for indices in kept.values()]
    assert counts[-1] == COUNTS[-1][-1] and sum(counts) < sum(map(sum, COUNTS))


@functools.partial(jax.jit, static_argnums=0)
def train_logits(model, variables):
    output, moved = model.apply(variables, IMAGES, train=True, mutable=["batch_stats"])
    return output.logits, moved["batch_stats"]


@pytest.mark.parametrize("projection", [False, True])
def test_training_goes_on_the_same_unless_branches_share_a_projection(projection):
    """The batch norm of a shared projection has statistics over branches that are gone, too."""
    model = network(1, "mean", projection)
    variables = frozen(1, 2, projection)
    assert ("shortcut" in variables["params"]["stage3"]["block0"]) == projection
    small, own, kept = prune.prune_network(model, variables)
    assert any(len(kept[name]) < spec.branches for name, spec in model.modules().items())
    full, moved = train_logits(model, variables)
    pruned, own_moved = train_logits(small, own)
    scale = float(np.abs(full).max())
    if projection:
        assert np.abs(pruned - full).max() > 1e-2 * scale
        return
    np.testing.assert_allclose(pruned, full, rtol=0, atol=1e-5 * scale)
    want = prune.prune_variables(model, {"batch_stats": moved}, kept)["batch_stats"]
    for a, b in zip(jax.tree.leaves(own_moved), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("aggregate", ["sum", "mean"])
@pytest.mark.parametrize("fan_in", [1, 2, 3])
def test_pruned_networks_of_any_masks_compute_the_same(fan_in, aggregate):
    for seed in range(4):
        assert_same_logits(fan_in, aggregate, seed)


def test_a_branch_that_only_a_dead_one_reads_goes_too():
    chain = {
        # Branch 3 of the first module is read by branch 2 of the second alone, which nobody reads.
        "stage2/block1": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]],
        "stage3/block0": [[1, 0, 0], [0, 1, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]],
        "stage3/block1": [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0, 1, 0, 0, 0]],
    }
    masks = {name: jnp.asarray(rows, jnp.float32) for name, rows in chain.items()}
    small, _, kept = prune.prune_network(network(1), {**weights(), "masks": masks})
    assert {n: k.tolist() for n, k in kept.items()} == {
        "stage2/block0": [0, 1],
        "stage2/block1": [0, 1],
        "stage3/block0": [0, 1],
        "stage3/block1": [0, 1, 2, 3],
    }
    assert [spec.connections for spec in small.modules().values()] == [
        None,
        ((0,), (1,)),
        ((0,), (1,)),
        ((0,), (1,), (0,), (1,)),
    ]


def test_the_pruned_network_is_an_ordinary_one_that_can_be_trained_on():
    small, own, _ = prune.prune_network(network(1), frozen(1, 3))
    fresh = jax.eval_shape(small.init, jax.random.key(0), IMAGES[:1])
    assert type(small) is MaskConnectNet and set(fresh) == {"params", "batch_stats"}
    assert jax.tree.map(np.shape, own) == jax.tree.map(lambda x: x.shape, fresh)
    labels = jnp.arange(3)
    own = jax.tree.map(jnp.asarray, own)

    @jax.jit
    def step(params, statistics):
        def loss(params):
            output, moved = small.apply(
                {"params": params, "batch_stats": statistics},
                IMAGES,
                train=True,
                mutable=["batch_stats"],
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(output.logits, labels)
            return losses.mean(), moved["batch_stats"]

        (value, moved), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradient), moved, value

    params, statistics, values = own["params"], own["batch_stats"], []
    for _ in range(5):
        params, statistics, value = step(params, statistics)
        values.append(float(value))
    assert np.isfinite(values).all() and values[-1] < values[0]


def test_the_gradient_of_what_stays_is_that_of_the_full_network():
    model, variables = network(2, "mean"), frozen(2, 3)
    small, own, kept = prune.prune_network(model, variables)
    weighing = jax.random.normal(jax.random.key(5), (len(IMAGES), 10))

    @functools.partial(jax.jit, static_argnums=0)
    def gradient(model, params, rest):
        def loss(params):
            return jnp.sum(model.apply({"params": params, **rest}, IMAGES).logits * weighing)

        return jax.grad(loss)(params)

    def of(model, variables):
        rest = {name: v for name, v in variables.items() if name != "params"}
        return {"params": gradient(model, variables["params"], rest)}

    full = prune.prune_variables(model, of(model, variables), kept)
    for got, want in zip(jax.tree.leaves(of(small, own)), jax.tree.leaves(full), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4 * float(np.abs(want).max()))


def branch_parameters(spec, inputs):
    """Of one branch: three convolutions without bias, and scale and bias of their batch norms."""
    inner, outer = spec.width, spec.channels
    return inputs * inner + 2 * inner + 9 * inner**2 + 2 * inner + inner * outer + 2 * outer


def test_what_pruning_saves_is_the_parameters_of_the_branches_that_are_gone():
    """{29, 8, 8}, K=1, of 0.86 M parameters (Table 1).

    The 0.65 M that the paper has left are those of a learned network, which is not given.
    """
    model = branchnets.create_model("maskconnect29_w8_c8", fan_in=1)
    modules = model.modules()
    shape = (32, 32, 3)
    whole = describe(model, shape).parameters
    assert round(whole / 1e6, 2) == 0.86
    # Branch j reads branch j // 2: 8 branches stay in the last module, 4, 2 and 1 before it.
    halves = (np.arange(8)[:, None] // 2 == np.arange(8)).astype(float)
    connections = dict.fromkeys(list(modules)[1:], halves)
    kept = connectivity.alive(modules, connections)
    assert [len(indices) for indices in kept.values()] == [1, 1, 1, 1, 1, 1, 2, 4, 8]
    inputs = dict(zip(modules, [16] + [s.channels for s in modules.values()], strict=False))
    gone = sum(
        (spec.branches - len(kept[name])) * branch_parameters(spec, inputs[name])
        for name, spec in modules.items()
    )
    small = prune.prune_model(model, connections, kept)
    images = jax.ShapeDtypeStruct((1, *shape), "float32")
    fresh = jax.eval_shape(small.init, jax.random.key(0), images)
    assert count_parameters(fresh) == whole - gone


def test_masks_that_do_not_fit_the_network_are_refused():
    variables = frozen(1, 0)
    masks = dict(variables["masks"])
    masks["stage3/block0"] = jnp.ones((5, 4))
    with pytest.raises(ConfigError, match=r"stage3/block0 has shape \(5, 4\), must be \(5, 3\)"):
        prune.prune_network(network(1), {**variables, "masks": masks})
    with pytest.raises(ConfigError, match="the variables have no masks.*all collections"):
        prune.prune_network(network(1), weights())
    del masks["stage3/block1"]
    masks["stage3/block0"] = variables["masks"]["stage3/block0"]
    with pytest.raises(ConfigError, match="the variables have no mask of stage3/block1"):
        prune.prune_network(network(1), {**variables, "masks": masks})


def test_masks_that_are_not_frozen_are_refused():
    variables = frozen(1, 0)
    # One module is enough, even after one that could have been frozen.
    masks = {**variables["masks"], "stage3/block1": jnp.full((4, 5), 0.2)}
    with pytest.raises(ConfigError, match="stage3/block1 are real-valued.*learned.*mode 'tune'"):
        prune.prune_network(network(1), {**variables, "masks": masks})


def test_masks_that_were_frozen_with_another_fan_in_are_refused():
    with pytest.raises(ConfigError, match="frozen with K=2, the config says model.fan_in=1") as e:
        prune.prune_network(network(1), frozen(2, 0))
    assert "learned" not in str(e.value)
    # Rows of one 1 are also what learning may come to.
    with pytest.raises(ConfigError, match="frozen with K=1, .*fan_in=2.*still being learned"):
        prune.prune_network(network(2), frozen(1, 0))
    mixed = {**frozen(2, 0)["masks"], "stage2/block1": jnp.eye(3, 4).at[0, 1].set(1)}
    with pytest.raises(ConfigError, match="frozen with K=1 or 2, "):
        prune.prune_network(network(2), {**weights(), "masks": mixed})


def test_parameters_of_the_pruned_network_are_counted_from_its_variables():
    small, own, _ = prune.prune_network(network(1), frozen(1, 3))
    assert count_parameters(own) == describe(small, (4, 4, 1)).parameters


def test_pruning_what_is_pruned_changes_nothing():
    small, own, _ = prune.prune_network(network(1), frozen(1, 3))
    again, same, kept = prune.prune_network(small, own)
    assert again == small and jax.tree.all(jax.tree.map(np.array_equal, own, same))
    assert all(len(kept[name]) == spec.branches for name, spec in small.modules().items())

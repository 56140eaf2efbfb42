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


def network(fan_in, aggregate="sum"):
    stages = tuple(
        tuple(ModuleSpec(4, n, 2, stride=1 + (s and not b)) for b, n in enumerate(stage))
        for s, stage in enumerate(COUNTS)
    )
    return MaskConnectNet(stages, 10, fan_in=fan_in, aggregate=aggregate, stem_channels=4)


@functools.cache
def weights():
    """Variables of :func:`network` in which nothing is 0 or 1 by initialisation; no masks."""
    variables = dict(jax.jit(network(1).init)(jax.random.key(0), IMAGES[:1]))
    del variables["masks"]
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    moved = [x + jnp.abs(jax.random.normal(k, x.shape)) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, moved)


def frozen(fan_in, seed):
    """Variables with random frozen masks."""
    counts = [n for stage in COUNTS for n in stage]
    chosen = random_masks(np.random.default_rng(seed), counts, fan_in)
    names = list(network(1).modules())[1:]
    stored = {n: jnp.asarray(m, jnp.float32) for n, m in zip(names, chosen, strict=True)}
    return {**weights(), "masks": stored}


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


def test_one_input_a_branch_prunes_as_much_as_the_paper_says():
    """{29, 8, 8}, K=1: 0.86 M parameters in training and 0.65 M in use (Table 1)."""
    model = branchnets.create_model("maskconnect29_w8_c8", fan_in=1)
    modules = model.modules()
    whole = describe(model, (32, 32, 3)).parameters
    assert round(whole / 1e6, 2) == 0.86
    inputs = dict(zip(modules, [16] + [s.channels for s in modules.values()], strict=False))
    each = {name: branch_parameters(spec, inputs[name]) for name, spec in modules.items()}
    counts = [spec.branches for spec in modules.values()]
    random, left = np.random.default_rng(0), []
    for _ in range(400):
        chosen = random_masks(random, counts, 1)
        kept = connectivity.alive(modules, dict(zip(list(modules)[1:], chosen, strict=True)))
        gone = sum(each[n] * (spec.branches - len(kept[n])) for n, spec in modules.items())
        left.append(whole - gone)
    # Random inputs lose more than learned ones; the paper's network is among what can be.
    assert min(left) < 0.65e6 < max(left) < 0.86e6
    # The sum is what the pruned network has.
    connections = dict(zip(list(modules)[1:], chosen, strict=True))
    small = prune.prune_model(model, connections, kept)
    assert describe(small, (32, 32, 3)).parameters == left[-1]


def test_masks_that_do_not_fit_the_network_are_refused():
    variables = frozen(1, 0)
    masks = dict(variables["masks"])
    masks["stage3/block0"] = jnp.ones((5, 4))
    with pytest.raises(ConfigError, match=r"stage3/block0 has shape \(5, 4\), must be \(5, 3\)"):
        prune.prune_network(network(1), {**variables, "masks": masks})
    with pytest.raises(ConfigError, match=r"stage2/block1 has shape \(\), must be \(3, 4\)"):
        prune.prune_network(network(1), weights())


def test_masks_that_are_not_frozen_are_refused():
    # Zeros and ones, but of another fan-in than the network's.
    with pytest.raises(ConfigError, match="still being learned.*mode 'tune'"):
        prune.prune_network(network(1), frozen(2, 0))


def test_parameters_of_the_pruned_network_are_counted_from_its_variables():
    small, own, _ = prune.prune_network(network(1), frozen(1, 3))
    assert count_parameters(own) == describe(small, (4, 4, 1)).parameters

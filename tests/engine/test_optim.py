"""Learning-rate schedules and SGD in closed form."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from branchnets.engine import config as configs
from branchnets.engine import optim


def config(**fields):
    config = configs.base()
    config.epochs = 10
    config.optimizer.learning_rate = 0.5
    for path, value in fields.items():
        section, _, name = path.partition("__")
        config[section][name] = value
    return config


def rates(config, steps_per_epoch=4):
    resolved = configs.resolve(config, steps_per_epoch=steps_per_epoch)
    rate = optim.schedule(config, resolved)
    return np.array([float(rate(jnp.asarray(s))) for s in range(resolved.total_steps)])


def test_cosine_per_epoch_starts_at_the_peak_and_ends_at_the_final_rate():
    found = rates(config(schedule__final_learning_rate=1e-4))
    assert len(set(found.round(7))) == 10  # one rate an epoch
    assert found[0] == pytest.approx(0.5)
    assert found[-1] == found[-4] == pytest.approx(1e-4, rel=1e-4)
    third = 1e-4 + (0.5 - 1e-4) * (1 + math.cos(math.pi * 3 / 9)) / 2
    assert found[12] == pytest.approx(third, rel=1e-5)


def test_cosine_per_step_falls_every_step():
    found = rates(config(schedule__update_every="step"))
    assert (np.diff(found) < 0).all() and found[20] == pytest.approx(0.25, abs=1e-6)


def test_warm_up_is_linear_and_meets_the_peak():
    found = rates(config(schedule__warmup_epochs=2.0, schedule__final_learning_rate=1e-4))
    np.testing.assert_allclose(found[:8], 0.5 * np.arange(1, 9) / 8, rtol=1e-6)
    assert found[8] == pytest.approx(0.5) and found[-1] == pytest.approx(1e-4, rel=1e-4)


def test_steps_multiply_at_the_milestones():
    found = rates(config(schedule__name="step", schedule__milestones=(5, 8)))
    np.testing.assert_allclose(found[[0, 19, 20, 31, 32, 39]], [0.5, 0.5, 0.05, 0.05, 0.005, 0.005])


def test_constant_stays():
    assert set(rates(config(schedule__name="constant"))) == {0.5}


def test_sgd_is_pytorchs_with_nesterov_and_coupled_decay():
    settings = config(
        optimizer__weight_decay=0.1, optimizer__momentum=0.9, optimizer__nesterov=True
    )
    tx = optim.optimizer(settings, lambda step: 0.5)
    p, buffer = np.array([1.0, -2.0]), np.zeros(2)
    params = {"kernel": jnp.array(p)}
    state = tx.init(params)
    for g in (np.array([0.3, 0.1]), np.array([-0.2, 0.4])):
        updates, state = tx.update({"kernel": jnp.array(g)}, state, params)
        params = {"kernel": params["kernel"] + updates["kernel"]}
        decayed = g + 0.1 * p
        buffer = 0.9 * buffer + decayed
        p = p - 0.5 * (decayed + 0.9 * buffer)
    np.testing.assert_allclose(params["kernel"], p, rtol=1e-6)


def test_weight_decay_exclusions_are_searched_in_the_path():
    mask = optim.decay_mask(("bias$", "scale$"))
    tree = {"head": {"linear": {"kernel": 0, "bias": 0}}, "bn": {"scale": 0}}
    assert mask(tree) == {
        "head": {"linear": {"kernel": True, "bias": False}},
        "bn": {"scale": False},
    }
    with pytest.raises(configs.ConfigError, match="regular expression"):
        optim.decay_mask(("(",))


def test_gradient_clipping_bounds_the_norm():
    settings = config(optimizer__grad_clip=1.0, optimizer__momentum=0.0)
    tx = optim.optimizer(settings, lambda step: 1.0)
    params = {"kernel": jnp.zeros(4)}
    updates, _ = tx.update({"kernel": jnp.full(4, 10.0)}, tx.init(params), params)
    assert float(jnp.linalg.norm(updates["kernel"])) == pytest.approx(1.0)


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(configs.ConfigError, match="'adamw'"):
        optim.optimizer(config(optimizer__name="adamw"), lambda step: 1.0)


def test_jit_gives_the_same_rates():
    settings = config(schedule__warmup_epochs=1.0)
    rate = optim.schedule(settings, configs.resolve(settings, steps_per_epoch=4))
    assert float(jax.jit(rate)(17)) == pytest.approx(float(rate(jnp.asarray(17))), rel=1e-6)

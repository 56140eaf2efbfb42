"""The optimiser and the learning rate of a config, as optax has them."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import optax

from branchnets.engine.config.resolve import Resolved
from branchnets.errors import ConfigError


def schedule(config: Any, resolved: Resolved) -> optax.Schedule:
    """The learning rate as a function of the step.

    ``"cosine"`` falls from the peak to ``final_learning_rate`` over the steps after the warm-up;
    ``"step"`` multiplies by ``factor`` at every milestone; ``"constant"`` stays.  The warm-up is
    linear from 0.  With ``update_every="epoch"`` the rate is that of the epoch's first step
    during the whole epoch; the warm-up always moves every step.
    """
    settings, peak = config.schedule, resolved.learning_rate
    warmup, total = resolved.warmup_steps, resolved.total_steps
    if settings.name == "cosine":
        final = settings.final_learning_rate
        # Per epoch, the last epoch's first step is where the rate is read last: it ends there.
        per_epoch = settings.update_every == "epoch"
        span = total - warmup - (resolved.steps_per_epoch if per_epoch else 0)
        main = optax.cosine_decay_schedule(peak, max(span, 1), alpha=final / peak)
    elif settings.name == "step":
        main = optax.piecewise_constant_schedule(
            peak, {step - warmup: settings.factor for step in resolved.milestone_steps}
        )
    else:
        main = optax.constant_schedule(peak)

    def rate(step: jax.Array) -> jax.Array:
        read_at = step
        if settings.update_every == "epoch":
            read_at = step // resolved.steps_per_epoch * resolved.steps_per_epoch
        value = main(jnp.maximum(read_at - warmup, 0))
        if warmup:
            value = jnp.where(step < warmup, peak * (step + 1) / warmup, value)
        return jnp.asarray(value, jnp.float32)

    return rate


def optimizer(config: Any, rate: optax.Schedule) -> optax.GradientTransformation:
    """SGD as PyTorch has it: clip, add weight decay to the gradient, momentum, step.

    Args:
      config: with an ``optimizer`` section.
      rate: the learning rate.

    Raises:
      ConfigError: an unknown optimiser, or an exclusion that is not a regular expression.
    """
    settings = config.optimizer
    if settings.name != "sgd":
        raise ConfigError(f"optimizer.name is {settings.name!r}; there is 'sgd'.")
    chain = []
    if settings.grad_clip is not None:
        chain.append(optax.clip_by_global_norm(settings.grad_clip))
    if settings.weight_decay:
        mask = decay_mask(tuple(settings.weight_decay_exclude))
        chain.append(optax.add_decayed_weights(settings.weight_decay, mask))
    chain.append(optax.sgd(rate, momentum=settings.momentum or None, nesterov=settings.nesterov))
    return optax.chain(*chain)


def decay_mask(exclude: tuple[str, ...]) -> Any:
    """A function from parameters to booleans: True where weights decay.

    Args:
      exclude: regular expressions; a parameter whose path (``"stage2/block0/reduce/kernel"``)
        contains a match does not decay.
    """
    try:
        patterns = [re.compile(pattern) for pattern in exclude]
    except re.error as error:
        raise ConfigError(
            f"optimizer.weight_decay_exclude: {error.pattern!r} is no regular expression: {error}"
        ) from error

    def mask(params: Any) -> Any:
        def decays(path: Any, _: Any) -> bool:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            return not any(pattern.search(name) for pattern in patterns)

        return jax.tree_util.tree_map_with_path(decays, params)

    return mask

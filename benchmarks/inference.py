"""Times the forward pass in evaluation of registered models, as the trainer's evaluation makes it.

    python -m benchmarks.inference resnext29_10x11d coded_resnext29_10x11d_cifar10 --batch=32

Random weights, one synthetic batch on the device, running averages in batch norm; logits are all
that is asked for, so what they do not need (energies of the last block) is not computed. Words
after a colon are as in benchmarks.train_step.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import models
from branchnets import families


def compile_model(case: models.Case) -> models.Compiled:
    """Builds a model's forward pass for the first device and compiles it."""
    config = case.variant.config()
    config.dtype = case.dtype
    model = families.create(config, case.variant.spec(case.image_shape, case.classes)).model
    images = jax.random.normal(jax.random.key(0), (case.batch, *case.image_shape))
    variables = jax.jit(model.init)(jax.random.key(0), images[:1])

    def forward(variables: Any, images: jax.Array) -> jax.Array:
        output: Any = model.apply(variables, images, train=False)
        return output.logits

    compiled, seconds, peak = models.timed_compile(jax.jit(forward), variables, images)
    run = partial(_wait, compiled, variables, images)
    return models.Compiled(run, seconds, peak)


def _wait(compiled: Any, variables: Any, images: jax.Array) -> None:
    jnp.asarray(compiled(variables, images)).block_until_ready()


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    models.measure("inference", __doc__ or "", compile_model, argv)


if __name__ == "__main__":
    main()

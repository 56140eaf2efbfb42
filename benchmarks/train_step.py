"""Times whole training steps of registered models: forward, losses, backward and the update.

    python -m benchmarks.train_step resnext29_10x11d coded_resnext29_10x11d_cifar10 --batch=32
    python -m benchmarks.train_step maskconnect29_w8_c8 maskconnect29_w8_c8:connectivity=ones

After a colon stand fields of the config's model: NAME:field=value,...

The step is the one that trains (engine/step.py) with the model's own family and its default loss,
SGD with Nesterov momentum and weight decay, and the state donated; the batch is synthetic and lies
on the device. One device, batch norm over the whole batch. The peak is what XLA says the compiled
step needs: arguments, temporaries, code, and outputs of its own (the state is donated).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax

from benchmarks import models
from branchnets import families
from branchnets.engine import mesh as meshes
from branchnets.engine import optim
from branchnets.engine import state as states
from branchnets.engine import step as steps


def compile_model(case: models.Case) -> models.Compiled:
    """Builds a model's training step for the first device and compiles it.

    Raises:
      ValueError: an unknown model, or a class count that its family cannot train.
    """
    config = case.variant.config()
    config.dtype, config.batch_size = case.dtype, case.batch
    config.optimizer.weight_decay = 5e-4
    spec = case.variant.spec(case.image_shape, case.classes)
    family = families.create(config, spec)
    optimizer = optim.optimizer(config, optax.constant_schedule(0.01))
    optimizers = {name: family.optimizer(name, optimizer) for name in family.trainable}

    mesh = meshes.make_mesh(jax.devices()[:1])
    copy = meshes.replicated(mesh)
    state = jax.jit(
        lambda: states.create(family, optimizers, case.image_shape, seed=0), out_shardings=copy
    )()
    random = np.random.default_rng(0)
    examples = {
        "image": random.standard_normal((case.batch, *case.image_shape), np.float32),
        "label": random.integers(spec.num_classes, size=case.batch, dtype=np.int32),
    }
    key = jax.random.key_data(jax.random.key(0))
    arrays = jax.device_put({"examples": examples, "key": key}, copy)

    one_step = steps.make_step(
        family,
        optimizers,
        lambda arrays, step, key: arrays["examples"],
        family.phases(total_steps=1)[0],
        mesh=mesh,
    )
    like = jax.eval_shape(one_step, state, arrays)[1]
    tally = jax.device_put(steps.empty_tally(like), copy)
    jitted: Any = steps.compile_step(one_step, mesh)
    compiled, compile_s, peak = models.timed_compile(jitted, state, arrays, tally)
    carried = (state, tally)

    def run() -> None:
        nonlocal carried
        state, tally, _ = jax.block_until_ready(compiled(carried[0], arrays, carried[1]))
        carried = (state, tally)

    return models.Compiled(run, compile_s, peak)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    models.measure("train_step", __doc__ or "", compile_model, argv)


if __name__ == "__main__":
    main()

"""Times whole training steps of registered models: forward, losses, backward and the update.

    python -m benchmarks.train_step resnext29_10x11d coded_resnext29_10x11d_cifar10 --batch=32
    python -m benchmarks.train_step maskconnect29_w8_c8 maskconnect29_w8_c8:connectivity=ones

After a colon stand fields of the config's model: NAME:field=value,...

The step is the one that trains (engine/step.py) with the model's own family and its default loss,
SGD with Nesterov momentum and weight decay, and the state donated; the batch is synthetic and lies
on the device. One device, batch norm over the whole batch. The peak is what XLA says the compiled
step needs: arguments + outputs + temporaries - aliased.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax

from benchmarks import timing
from benchmarks.variants import Variant, parse
from branchnets import families
from branchnets.engine import mesh as meshes
from branchnets.engine import optim
from branchnets.engine import state as states
from branchnets.engine import step as steps


@dataclass(frozen=True)
class Compiled:
    """A compiled step: `run()` takes one and waits for it."""

    run: Callable[[], None]
    compile_s: float
    peak_bytes: int


def compile_model(
    variant: Variant,
    image_shape: tuple[int, int, int],
    classes: int | None,
    batch: int,
    dtype: str,
) -> Compiled:
    """Builds a model's training step for the first device and compiles it.

    Args:
      variant: the model.
      image_shape: (H, W, C).
      classes: K; None is the model's usual number.
      batch: examples of a step.
      dtype: "float32" or "bfloat16", what the network computes in.

    Raises:
      ValueError: an unknown model, or a class count that its family cannot train.
    """
    config = variant.config()
    config.dtype, config.batch_size = dtype, batch
    config.optimizer.weight_decay = 5e-4
    spec = variant.spec(image_shape, classes)
    family = families.create(config, spec)
    optimizer = optim.optimizer(config, optax.constant_schedule(0.01))
    optimizers = {name: family.optimizer(name, optimizer) for name in family.trainable}

    mesh = meshes.make_mesh(jax.devices()[:1])
    copy = meshes.replicated(mesh)
    state = jax.jit(
        lambda: states.create(family, optimizers, image_shape, seed=0), out_shardings=copy
    )()
    random = np.random.default_rng(0)
    examples = {
        "image": random.standard_normal((batch, *image_shape), np.float32),
        "label": random.integers(spec.num_classes, size=batch, dtype=np.int32),
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
    start = time.perf_counter()
    jitted: Any = steps.compile_step(one_step, mesh)
    compiled = jitted.lower(state, arrays, tally).compile()
    compile_s = time.perf_counter() - start
    memory = compiled.memory_analysis()
    peak = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
    )
    carried = (state, tally)

    def run() -> None:
        nonlocal carried
        state, tally, _ = jax.block_until_ready(compiled(carried[0], arrays, carried[1]))
        carried = (state, tally)

    return Compiled(run, compile_s, peak)


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
    options = timing.parser("train_step", (__doc__ or "").splitlines()[0])
    options.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="(%(default)s)"
    )
    arguments = options.parse_args(argv)
    try:
        variants = {word: parse(word) for word in arguments.models}
        usual = {word: variant.entry.image_shape for word, variant in variants.items()}
        size = timing.common_size(usual, arguments.size)
        compiled = {}
        for name, variant in variants.items():
            shape = (*size, variant.entry.image_shape[2])
            compiled[name] = compile_model(
                variant, shape, arguments.classes, arguments.batch, arguments.dtype
            )
            timing.say(f"compiled {name} in {compiled[name].compile_s:.1f} s")
    except ValueError as error:
        options.error(str(error))

    times = timing.in_turn(
        {name: each.run for name, each in compiled.items()},
        arguments.rounds,
        clock=timing.CLOCKS[arguments.clock],
    )
    results = {
        name: timing.result(times[name], arguments.batch, each.compile_s, each.peak_bytes)
        for name, each in compiled.items()
    }
    setup = {
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "batch": arguments.batch,
        "size": "x".join(map(str, size)),
        "rounds": arguments.rounds,
        "dtype": arguments.dtype,
        "clock": arguments.clock,
    }
    timing.show(results, setup, arguments.json, times)


if __name__ == "__main__":
    main()

"""The largest activations of untrained networks, block by block, in float32 and bfloat16.

    python -m benchmarks.stream_range maskconnect101_w4_c32:aggregate=sum --size=32 --batch=2

A training forward pass (batch statistics, the family's own randomness) over random normal images.
Where a network sums what it should average, activations grow from block to block until they, or
their squares inside a batch norm, leave the range of a number.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from benchmarks import variants
from branchnets.engine.records.logging import format_table
from branchnets.errors import UserError
from branchnets.registry import build_from_config

_BLOCK = "block"


def largest(word: str, dtype: str, size: int | None, batch: int) -> dict[str, float]:
    """Block -> its largest absolute output; "logits" at the end. Infinite or NaN where it broke.

    Args:
      word: NAME[:field=value,...], as in the other benchmarks.
      dtype: "float32" or "bfloat16", what the network computes in.
      size: side of the images; None = the model's usual ones.
      batch: examples.
    """
    variant = variants.parse(word)
    shape = variant.entry.image_shape
    shape = shape if size is None else (size, size, shape[-1])
    config = variant.config()
    config.dtype = dtype
    model = build_from_config(config, variant.spec(shape))
    images = jax.random.normal(jax.random.key(0), (batch, *shape))

    # Operation by operation: one pass is not worth compiling a hundred layers as a whole.
    output, mutated = model.apply(
        model.init(jax.random.key(1), images),
        images,
        train=True,
        mutable=["batch_stats", "intermediates"],
        capture_intermediates=_is_block,
        rngs={"masks": jax.random.key(2), "dropout": jax.random.key(3)},
    )
    found = _peaks(mutated["intermediates"])
    return {**found, "logits": _peak(output.logits)}


def _is_block(module: nn.Module, method: str) -> bool:
    return method == "__call__" and (module.name or "").startswith(_BLOCK)


def _peaks(tree: Any) -> dict[str, float]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    named: dict[str, list[float]] = {}
    for path, leaf in leaves:
        parts = [str(entry.key) for entry in path if isinstance(entry, jax.tree_util.DictKey)]
        named.setdefault("/".join(parts[:2]), []).append(_peak(leaf))
    order = sorted(named, key=lambda name: [int(n) for n in re.findall(r"\d+", name)])
    return {name: max(named[name]) for name in order}


def _peak(values: jax.Array) -> float:
    values = values.astype(jnp.float32)
    return float(jnp.where(jnp.isfinite(values).all(), jnp.abs(values).max(), jnp.nan))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stream_range")
    parser.add_argument("models", nargs="+", metavar="NAME[:FIELD=VALUE,...]")
    parser.add_argument("--size", type=int, help="side of the images; default: the model's own")
    parser.add_argument("--batch", type=int, default=2, help="examples (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args(argv)
    try:
        found = {
            word: {t: largest(word, t, given.size, given.batch) for t in ("float32", "bfloat16")}
            for word in given.models
        }
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(found) if given.json else _render(found))
    return 0


def _render(found: dict[str, dict[str, dict[str, float]]]) -> str:
    parts = []
    for word, by_type in found.items():
        names = list(next(iter(by_type.values())))
        rows = [(name, *(_text(peaks[name]) for peaks in by_type.values())) for name in names]
        parts.append(f"{word}\n{format_table(rows, ('largest |output| of', *by_type))}")
    return "\n\n".join(parts)


def _text(value: float) -> str:
    return "not finite" if math.isnan(value) else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())

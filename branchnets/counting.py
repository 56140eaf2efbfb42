"""Parameters and multiply-adds of a network, counted from its shapes: nothing is computed.

The papers say FLOPs and mean multiply-adds (MACs) in convolutions and linear layers. Those are
counted here by walking the jaxpr of the forward pass, which sees every convolution and product,
whatever module it is in, and nothing else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr

# What a program that chooses its form by platform is counted on. There a grouped convolution is
# written as one; elsewhere it may be a dense one with zeros in its kernel, whose extra products
# belong to that way of computing it and not to the network.
REFERENCE_PLATFORM = "tpu"


def count_parameters(variables: Any) -> int:
    """Number of trained scalars.

    Args:
      variables: what `model.init` returns, or the "params" collection alone, as arrays or as the
        shapes that `jax.eval_shape` gives. Of a dictionary with a "params" entry, that entry is
        counted, so running averages are not.

    Example:
      >>> import branchnets, jax
      >>> model = branchnets.create_model("resnet50")
      >>> images = jax.ShapeDtypeStruct((1, 224, 224, 3), "float32")
      >>> count_parameters(jax.eval_shape(model.init, jax.random.key(0), images))
      25557032
    """
    if isinstance(variables, Mapping) and "params" in variables:
        variables = variables["params"]
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables))


def count_macs(fn: Callable[..., Any], *args: Any) -> int:
    """Multiply-adds of `fn(*args)` in convolutions and matrix products.

    A convolution counts output positions x kernel positions x input channels of one group, as
    the usual tools do: a kernel position that falls on the padding is counted, since the
    padding is part of the definition of the layer, and zeros put between the entries of a
    strided transposed convolution are not. A program that chooses by platform counts the form
    for `REFERENCE_PLATFORM`, and so does not depend on the machine; an ordinary conditional
    counts its costliest branch; a scan counts its body as often as it runs.

    Args:
      fn: a function that JAX can trace.
      *args: its arguments, arrays or shapes (`jax.ShapeDtypeStruct`).

    Raises:
      ValueError: `fn` multiplies inside a while loop, whose length the shapes do not tell.

    Example:
      >>> x = jax.ShapeDtypeStruct((8, 16), "float32")
      >>> count_macs(lambda x: x @ x.T, x)
      1024
    """
    return sum(macs for _, macs in _costs(jax.make_jaxpr(fn)(*args).jaxpr))


@dataclass(frozen=True)
class Row:
    """One part of a network.

    Attributes:
      name: path of the module, such as "stage2" or "stage2/block0".
      output_shape: of its output (the first array of several) for one input; None if the module
        is not called as a whole.
      parameters: trained scalars.
      macs: multiply-adds for one input.
    """

    name: str
    output_shape: tuple[int, ...] | None
    parameters: int
    macs: int


@dataclass(frozen=True)
class Description:
    """What `describe` found; the rows of `stages` add up to `parameters` and `macs`.

    Attributes:
      input_shape: of one input, (H, W, C).
      parameters: trained scalars.
      macs: multiply-adds that one more input in the batch costs.
      weight_macs: multiply-adds that depend on the parameters alone and are done once a batch,
        such as the Gram matrices of coded blocks; not in `macs`.
      stages: the parts in the order in which they run.
    """

    input_shape: tuple[int, ...]
    parameters: int
    macs: int
    weight_macs: int
    stages: tuple[Row, ...]


def describe(
    model: nn.Module, input_shape: tuple[int, ...], *, depth: int = 1, **call: Any
) -> Description:
    """Parameters, multiply-adds and a table of the parts of a model, in evaluation.

    Args:
      model: a model of `create_model`, or any module called as `model(images, train=False)`.
      input_shape: (H, W, C) of one input.
      depth: how far down modules get a row of their own: 1 for stages, 2 for blocks.
      **call: further arguments of the call, such as a family's masks; closed over as they are.

    Raises:
      ValueError: depth is below 1.

    Example:
      >>> import branchnets
      >>> description = describe(branchnets.create_model("resnet50"), (224, 224, 3))
      >>> description.macs, [row.name for row in description.stages][:2]
      (4089184256, ['stem', 'stage2'])
    """
    if depth < 1:
        raise ValueError(f"depth must be at least 1, got {depth}")
    one, shapes, variables = _trace(model, input_shape, 1, depth, call)
    two, _, _ = _trace(model, input_shape, 2, depth, call)
    macs = {name: two.get(name, 0) - one[name] for name in one}

    parameters: dict[str, int] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"]):
        modules = [str(key.key) for key in path][:-1]
        name = "/".join(modules[:depth])
        parameters[name] = parameters.get(name, 0) + math.prod(leaf.shape)

    # Running order. A module that only calls others, which have rows, gets none itself.
    rows = [
        Row(name or "(model)", shapes.get(name), parameters.get(name, 0), macs.get(name, 0))
        for name in dict.fromkeys([*shapes, *parameters, *macs])
        if parameters.get(name)
        or macs.get(name)
        or not any(other.startswith(f"{name}/" if name else "") for other in shapes if other)
    ]
    total = sum(macs.values())
    return Description(
        input_shape=tuple(input_shape),
        parameters=count_parameters(variables),
        macs=total,
        weight_macs=sum(one.values()) - total,
        stages=tuple(rows),
    )


def _trace(
    model: nn.Module, input_shape: tuple[int, ...], batch: int, depth: int, call: dict[str, Any]
) -> tuple[dict[str, int], dict[str, tuple[int, ...]], Any]:
    """MACs and output shapes by part, and the shapes of the variables."""
    shapes: dict[str, tuple[int, ...]] = {}

    def mark(next_fun, args, kwargs, context):
        # Marks of our own in the name stack: Flax's own names depend on a setting of it.
        path = context.module.path[:depth]
        whole = len(context.module.path) <= depth and context.method_name == "__call__"
        if whole:
            shapes.setdefault("/".join(path), ())  # keeps the order in which modules start
        with jax.named_scope(f"[{'.'.join(path)}]"):
            output = next_fun(*args, **kwargs)
        if whole and (leaves := jax.tree.leaves(output)):
            shapes["/".join(path)] = tuple(leaves[0].shape[1:])
        return output

    def forward(variables, images):
        with nn.intercept_methods(mark):
            return model.apply(variables, images, train=False, **call)

    images = jax.ShapeDtypeStruct((batch, *input_shape), jnp.float32)
    variables = jax.eval_shape(
        lambda key, x: model.init(key, x, train=False, **call), jax.random.key(0), images
    )
    macs: dict[str, int] = {}
    for scope, cost in _costs(jax.make_jaxpr(forward)(variables, images).jaxpr):
        marks = re.findall(r"\[([^\[\]]*)\]", scope)
        name = marks[-1].replace(".", "/") if marks else ""
        macs[name] = macs.get(name, 0) + cost
    return macs, shapes, variables


def _costs(jaxpr: Jaxpr, outer: str = "") -> Iterator[tuple[str, int]]:
    """Yields (name stack, multiply-adds) of everything in a jaxpr that multiplies."""
    for eqn in jaxpr.eqns:
        # The stack of an inner jaxpr starts anew at the equation that holds it.
        scope = f"{outer}/{eqn.source_info.name_stack}"
        rule = _RULES.get(eqn.primitive.name)
        if rule is not None:
            yield scope, rule(eqn)
        elif eqn.primitive.name == "cond":
            yield from _branch(eqn, scope)
        elif eqn.primitive.name == "while":
            if any(cost for inner in _inner(eqn) for _, cost in _costs(inner)):
                raise ValueError(
                    "cannot count the multiply-adds of a while loop, whose length is not known "
                    "before it runs; use lax.scan, or lax.fori_loop with constant bounds inside "
                    "a function that is differentiated"
                )
        else:
            times = eqn.params["length"] if eqn.primitive.name == "scan" else 1
            for inner in _inner(eqn):
                for name, cost in _costs(inner, scope):
                    yield name, times * cost


def _branch(eqn: Any, scope: str) -> list[tuple[str, int]]:
    branches = [list(_costs(branch.jaxpr, scope)) for branch in eqn.params["branches"]]
    # Of lax.platform_dependent: the platforms of each branch, None for the default one.
    platforms = eqn.params.get("branches_platforms")
    if platforms is None:
        return max(branches, key=lambda costs: sum(cost for _, cost in costs))
    named = [of is not None and REFERENCE_PLATFORM in of for of in platforms]
    return branches[named.index(True) if any(named) else platforms.index(None)]


def _inner(eqn: Any) -> Iterator[Jaxpr]:
    """The jaxprs that an equation runs: the body of a jit, scan, custom gradient, remat, ..."""
    for value in eqn.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item


def _convolution(eqn: Any) -> int:
    kernel = eqn.invars[1].aval.shape
    outputs = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
    # The kernel already has one group's input channels only.
    per_output = math.prod(kernel) // outputs
    between = math.prod(eqn.params["lhs_dilation"])
    return math.prod(eqn.outvars[0].aval.shape) * per_output // between


def _dot(eqn: Any) -> int:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    shape = eqn.invars[0].aval.shape
    return math.prod(eqn.outvars[0].aval.shape) * math.prod(shape[axis] for axis in contracted)


_RULES: dict[str, Callable[[Any], int]] = {
    "conv_general_dilated": _convolution,
    "dot_general": _dot,
}

"""What a step holds, read onto any devices, once it is known to be whole."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from flax import traverse_util

from branchnets.engine.hosts import failure
from branchnets.engine.leaves import Name, abstract, differences, listed, named, zeros
from branchnets.engine.saving import disk
from branchnets.errors import CheckpointError
from branchnets.storage import AnyPath

_ITEM = "default"  # orbax's name for the one item of a step
_VARIABLES = ("params", "model_state", "ema")  # fields of a TrainState


def state(folder: AnyPath, template: Any, partial: bool = False) -> Any:
    """Read the state of a step.

    Args:
      folder: The step's.
      template: A pytree of arrays or `jax.ShapeDtypeStruct`s with the structure, shapes,
        dtypes and shardings wanted.
      partial: Whether the step may have leaves that the template lacks.

    Raises:
      CheckpointError: It holds something else, with the differing leaves named, or it cannot be
        read.
    """
    wanted = named(template)
    lines = differences(_stored(folder), wanted, partial=partial)
    if lines:
        raise CheckpointError(
            f"the checkpoint {folder} holds another model or optimizer state than this one. "
            "Nothing was changed. The differences:\n  " + listed(lines)
        )
    # Arrays without elements are not stored: orbax refuses them.
    read = {path: abstract(leaf) for path, leaf in wanted.items() if math.prod(leaf.shape)}
    tree = traverse_util.unflatten_dict(read)
    with _reader(folder) as (reader, place):
        restored = reader.restore(
            place,
            args=ocp.args.PyTreeRestore(
                tree,
                restore_args=ocp.checkpoint_utils.construct_restore_args(tree),
                partial_restore=True,
            ),
        )
    found = traverse_util.flatten_dict(restored)
    leaves = [found[path] if path in found else zeros(leaf) for path, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def variables(folder: AnyPath, sharding: jax.sharding.Sharding) -> dict[str, jax.Array]:
    """Read the variables of a `TrainState` as they are evaluated, whatever network they are of.

    Args:
      folder: The step's.
      sharding: Where to put them.

    Returns:
      {name, such as "params/stem/conv/kernel": array}.

    Raises:
      CheckpointError: It cannot be read.
    """
    template = {
        path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
        for path, leaf in _stored(folder).items()
        if path[0] in _VARIABLES
    }
    found = named(state(folder, traverse_util.unflatten_dict(template), partial=True))
    # Running averages come last, in place of what they are averages of.
    order = sorted(found, key=lambda path: _VARIABLES.index(path[0]))
    return {"/".join(path[1:]): found[path] for path in order}


def _stored(folder: AnyPath) -> dict[Name, Any]:
    """The shapes and dtypes of a step's leaves, by their paths."""
    with _reader(folder) as (reader, place):
        return named(reader.metadata(place).tree)


@contextlib.contextmanager
def _reader(folder: AnyPath) -> Iterator[tuple[ocp.PyTreeCheckpointHandler, epath.Path]]:
    """What reads a state, not asking for orbax's own mark of a whole one, and where.

    Raises CheckpointError in place of whatever orbax raises.
    """
    reader = ocp.PyTreeCheckpointHandler()
    try:
        yield reader, epath.Path(str(folder / _ITEM))
    except Exception as error:
        if failure.of_jax(error):
            raise  # of the devices, or of the other processes
        raise CheckpointError(
            f"the checkpoint {folder} cannot be read: {disk.reason(error)}."
        ) from error
    finally:
        reader.close()

"""Fine-tuning: a run that starts from the weights of another, for the same classes or others."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from branchnets.engine import mesh as meshes
from branchnets.engine.leaves import differences, leaf_name, listed
from branchnets.engine.records.rundir import RunDir
from branchnets.engine.runs import checkpoint_step
from branchnets.engine.saving.checkpoint import Checkpoints
from branchnets.engine.setup import Setup
from branchnets.errors import ConfigError
from branchnets.storage import AnyPath, as_path


@dataclasses.dataclass(frozen=True)
class Source:
    """Trained variables, of whatever network.

    Attributes:
      arrays: name -> array, such as "params/stem/conv/kernel".
      class_names: in label order; None where they are not known.
      record: what they are: "source", and where they are known "model" and "step".
    """

    arrays: Mapping[str, Any]
    class_names: tuple[str, ...] | None
    record: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Start:
    """What a run begins with.

    Attributes:
      given: name -> array on the mesh; variables that are not there are initialised.
      record: for init.json: that of the source, "taken" (how many arrays) and "fresh" (names).
      text: for the terminal.
    """

    given: Mapping[str, jax.Array]
    record: Mapping[str, Any]
    text: str


def start(setup: Setup) -> Start | None:
    """Reads what ``init`` names and checks it against the network; None where it names nothing.

    Raises:
      UserError: no such run or file, one that cannot be read, or variables of other names or
        shapes than the network's, the last layer excepted.
    """
    init = setup.config.init
    if init.source is None:
        return None
    source = read_source(init, setup)
    state = setup.abstract_state()
    flat, _ = jax.tree_util.tree_flatten_with_path(state.variables)
    wanted = {leaf_name(path): leaf for path, leaf in flat}
    try:
        fresh = fresh_names(
            source.arrays,
            wanted,
            setup.family.head,
            setup.dataset.num_classes,
            new_head=init.new_head,
        )
    except ConfigError as error:
        model = setup.config.model.name
        raise ConfigError(f"init.source={init.source} does not fit {model}: {error}") from None
    taken = sorted(set(wanted) - set(fresh))
    sharding = meshes.replicated(setup.mesh)
    given = {name: jax.device_put(source.arrays[name], sharding) for name in taken}
    record = {**source.record, "taken": len(taken), "fresh": fresh}
    return Start(given, record, _text(record, source.class_names, setup.dataset.class_names))


def fresh_names(
    found: Mapping[str, Any],
    wanted: Mapping[str, Any],
    head: Sequence[str],
    num_classes: int,
    *,
    new_head: bool = False,
) -> list[str]:
    """The variables of a network to initialise, where all others are taken from a trained one.

    That is none, or the whole last layer: where its classes are others in number, or where a new
    one is asked for.

    Args:
      found: name -> anything with shape and dtype, of the trained network.
      wanted: the same of the network that is to begin.
      head: parts that the last layer is made of; see ``Family.head``.
      num_classes: K of the network that is to begin.
      new_head: whether the last layer is initialised in any case.

    Raises:
      ConfigError: anything else differs; the message lists what.
    """
    ours = {name for name in wanted if _inside(name, head)}
    other_classes = any(
        _differs_in_classes(found[name].shape, wanted[name].shape, num_classes)
        for name in ours & found.keys()
    )
    if new_head or other_classes:
        left_out = ours | {name for name in found if _inside(name, head)}
    else:
        left_out = set()
    lines = differences(
        {(name,): leaf for name, leaf in found.items() if name not in left_out},
        {(name,): leaf for name, leaf in wanted.items() if name not in left_out},
        holder="the source",
    )
    if lines:
        raise ConfigError(_refusal(lines, head))
    return sorted(ours & left_out)


def _refusal(lines: list[str], head: Sequence[str]) -> str:
    text = "their variables differ.\n  " + listed(lines)
    if all(_inside(line.partition(":")[0], head) for line in lines):
        return f"{text}\nOnly the last layer differs: --config.init.new_head=True starts a new one."
    return text + (
        "\nThe last layer alone may differ, in its number of classes. Choose the network (depths, "
        "widths, branches) that the weights are of."
    )


def _inside(name: str, parts: Sequence[str]) -> bool:
    """Whether "collection/part/..." is a variable of one of the parts."""
    inner = name.partition("/")[2]
    return any(inner == part or inner.startswith(f"{part}/") for part in parts)


def _differs_in_classes(found: Sequence[int], wanted: Sequence[int], num_classes: int) -> bool:
    if len(found) != len(wanted):
        return False
    other = [axis for axis, size in enumerate(wanted) if found[axis] != size]
    return len(other) == 1 and wanted[other[0]] == num_classes


def read_source(init: ConfigDict, setup: Setup) -> Source:
    """The variables that a config's ``init`` section names.

    Args:
      init: with a ``source``: a run directory or a safetensors file.
      setup: says where to put them.

    Raises:
      UserError: there is none, or it cannot be read.
    """
    path = as_path(init.source)
    if (path / "config.json").is_file():
        return _read_run(path, init, setup)
    if init.checkpoint != "latest":
        raise ConfigError(
            f"init.checkpoint={init.checkpoint} chooses among those of a run, and {path} is no run "
            "directory; leave it out."
        )
    from branchnets.deploy import weights  # only where it is needed

    if not path.is_file():
        raise ConfigError(
            f"init.source={init.source} is neither a run directory (with config.json) nor a file "
            "of weights (.safetensors)."
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"init.source={path} cannot be read: {error.strerror}.") from error
    return Source(weights.read_arrays(data, str(path)), None, {"source": str(init.source)})


def _read_run(path: AnyPath, init: ConfigDict, setup: Setup) -> Source:
    run_dir = RunDir(path, write=False)
    trained = run_dir.config()
    metric = trained.checkpoint.best_metric
    with Checkpoints(run_dir.checkpoints, read_only=True, best_metric=metric) as checkpoints:
        step = checkpoint_step(checkpoints, init.checkpoint, "init.checkpoint")
        read = checkpoints.variables(step, meshes.replicated(setup.mesh))
    if read is None:
        raise ConfigError(f"init.source={init.source} has no checkpoint yet; train there first.")
    names = run_dir.derived().get("data", {}).get("class_names")
    record = {"source": str(init.source), "model": trained.model.name, "step": read[1]}
    return Source(read[0], None if names is None else tuple(names), record)


def _text(record: Mapping[str, Any], theirs: Sequence[str] | None, ours: Sequence[str]) -> str:
    step = f" at step {record['step']}" if "step" in record else ""
    fresh = ", ".join(record["fresh"])
    text = f"Starting from {record['source']}{step}: {record['taken']} arrays are taken from it"
    text += f"; new: {fresh}." if fresh else ", the last layer among them."
    if not fresh and (theirs is None or tuple(theirs) != tuple(ours)):
        names = "names that are not known" if theirs is None else "other names than this data set's"
        text += (
            f" Its classes have {names}; where they mean something else, "
            "--config.init.new_head=True starts a new last layer."
        )
    return text

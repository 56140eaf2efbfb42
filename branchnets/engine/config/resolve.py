"""What follows from a config: derived values, whether it can run, how two configs differ."""

from __future__ import annotations

import fnmatch
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from branchnets.data.device.augment import ORDERS
from branchnets.engine.config import stretch
from branchnets.engine.config.fields import base
from branchnets.engine.config.loading import flatten
from branchnets.errors import ConfigError, nearest
from branchnets.registry import DTYPES

MAY_CHANGE = (
    "log.*",
    "eval.every_epochs",
    "eval.batch_size",
    "checkpoint.*",
    "data.data_dir",
    "data.workers",
    "data.on_error",
    "bn_reestimation.batches",
    "profile",
)
"""Fields that a run may be resumed with others of: they change nothing that was learned so far."""

_CHOICES = {
    "dtype": tuple(DTYPES),
    "augment.order": ORDERS,
    "data.decoder": ("auto", "opencv", "pillow"),
    "data.on_error": ("stop", "skip"),
    "schedule.name": ("cosine", "step", "constant"),
    "schedule.update_every": ("epoch", "step"),
}

_AT_LEAST = {
    "batch_size": 1,
    "epochs": 1,
    "bn_group_size": 1,
    "optimizer.accumulate_steps": 1,
    "optimizer.weight_decay": 0,
    "optimizer.grad_clip": 0,
    "optimizer.momentum": 0,
    "schedule.factor": 0,
    "schedule.warmup_epochs": 0,
    "schedule.final_learning_rate": 0,
    "eval.batch_size": 1,
    "eval.every_epochs": 0,
    "checkpoint.every_epochs": 0,
    "checkpoint.every_steps": 1,
    "checkpoint.keep_latest": 1,
    "checkpoint.keep_best": 0,
    "log.every_steps": 1,
    "data.workers": 0,
    "augment.mixup": 0,
    "augment.cutmix": 0,
    "loss.label_smoothing": 0,
    "ema.decay": 0,
    "bn_reestimation.batches": 0,
    "eval.image_size": 1,
}

_BELOW = {"loss.label_smoothing": 1, "ema.decay": 1}


@dataclass(frozen=True)
class Resolved:
    """The values derived from a config; every interval is in steps (updates).

    Attributes:
      learning_rate: The peak rate.
      steps_per_epoch: Updates in one epoch.
      total_steps: Updates of the whole run.
      warmup_steps: Updates over which the rate rises to its peak.
      milestone_steps: Updates after which the step schedule multiplies the rate.
      microbatch_size: Examples whose gradient is computed at once, over all devices.
      eval_every_steps: Updates between evaluations; total_steps = only at the end.
      checkpoint_every_steps: Updates between checkpoints; total_steps = only at the end.
      log_every_steps: Updates between log lines.
    """

    learning_rate: float
    steps_per_epoch: int
    total_steps: int
    warmup_steps: int
    milestone_steps: tuple[int, ...]
    microbatch_size: int
    eval_every_steps: int
    checkpoint_every_steps: int
    log_every_steps: int

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary, for config.json."""
        return asdict(self)


def resolve(config: ConfigDict, *, steps_per_epoch: int) -> Resolved:
    """Derive what depends on several fields; call it after the overrides.

    The learning rate is `optimizer.learning_rate`, or else
    `optimizer.base_learning_rate * batch_size / 256` with the global batch size.

    Args:
      config: The config; it is not changed.
      steps_per_epoch: Whole batches in the training split.

    Raises:
      ConfigError: The training split is smaller than one batch.
    """
    if steps_per_epoch < 1:
        raise ConfigError(
            f"the training split is smaller than one batch of {config.batch_size}; "
            "lower --config.batch_size."
        )
    optimizer, schedule = config.optimizer, config.schedule
    learning_rate = optimizer.learning_rate
    if learning_rate is None:
        learning_rate = optimizer.base_learning_rate * config.batch_size / 256
    total = config.epochs * steps_per_epoch

    def interval(epochs: int) -> int:
        return min(epochs * steps_per_epoch or total, total)

    return Resolved(
        learning_rate=float(learning_rate),
        steps_per_epoch=steps_per_epoch,
        total_steps=total,
        warmup_steps=round(schedule.warmup_epochs * steps_per_epoch),
        milestone_steps=tuple(round(epoch * steps_per_epoch) for epoch in schedule.milestones),
        microbatch_size=config.batch_size // optimizer.accumulate_steps,
        eval_every_steps=interval(config.eval.every_epochs),
        checkpoint_every_steps=(
            config.checkpoint.every_steps or interval(config.checkpoint.every_epochs)
        ),
        log_every_steps=config.log.every_steps,
    )


def validate(config: ConfigDict, num_devices: int, *, train: bool = True) -> None:
    """Refuse a config that cannot run on this many devices, and say what to change.

    Args:
      config: The config, overrides included.
      num_devices: Devices that the batch is divided over, on all hosts.
      train: Whether the config is to train with, and not only to evaluate.

    Raises:
      ConfigError: A batch size that something does not divide, or a field out of its range.
    """
    flat = flatten(config)
    for path, choices in _CHOICES.items():
        if flat[path] not in choices:
            raise ConfigError(
                f"{path} is {flat[path]!r}, which is not one of {', '.join(choices)}. "
                f"{nearest(str(flat[path]), choices)}"
            )
    for path, least in _AT_LEAST.items():
        value = flat[path]
        if value is not None and not (value >= least and math.isfinite(value)):
            raise ConfigError(f"{path} is {value}; it must be at least {least}.")
    for path, most in _BELOW.items():
        if not flat[path] < most:
            raise ConfigError(f"{path} is {flat[path]}; it must be below {most}.")
    if not 0 < config.eval.crop_fraction <= 1:
        raise ConfigError(
            f"eval.crop_fraction is {config.eval.crop_fraction}; it must be above 0 and at most 1."
        )
    for path in ("optimizer.learning_rate", "optimizer.base_learning_rate"):
        if flat[path] is not None and not (flat[path] > 0 and math.isfinite(flat[path])):
            raise ConfigError(f"{path} is {flat[path]}; it must be above 0.")
    if not train:
        return
    stretch.parse(config.profile)
    if config.schedule.warmup_epochs >= config.epochs:
        raise ConfigError(
            f"schedule.warmup_epochs ({config.schedule.warmup_epochs:g}) leaves nothing of the "
            f"{config.epochs} epochs; lower it or raise epochs."
        )
    batch, parts = config.batch_size, config.optimizer.accumulate_steps
    group = config.bn_group_size or 1
    unit = parts * math.lcm(num_devices, group)  # what any batch must be a multiple of
    mixed = config.augment.mixup > 0 or config.augment.cutmix > 0
    pairs = 2 * num_devices if mixed else 1
    unit = math.lcm(unit, pairs)
    part = "batch_size" if parts == 1 else "batch_size / optimizer.accumulate_steps"
    for name, value, divisor, of_what in (
        ("batch_size", batch, parts, "parts (optimizer.accumulate_steps)"),
        (part, batch // parts, num_devices, "devices"),
        (part, batch // parts, group, "examples a batch-norm group (bn_group_size)"),
        # Partners lie on one device.
        ("batch_size", batch, pairs, "(2 on each device, for mixup and cutmix take pairs)"),
    ):
        if value % divisor:
            raise ConfigError(
                f"{name} is {value}, which {divisor} {of_what} do not divide; "
                f"try --config.batch_size={_multiples(batch, unit)}."
            )


def spread_groups(config: ConfigDict, num_devices: int) -> str | None:
    """What to tell where devices share the groups of batch norm, None where none is shared.

    Such groups are what the config asks for, but their statistics go between devices in every
    layer, forward and backward.

    Args:
      config: valid, see :func:`validate`.
      num_devices: that a batch is spread over.
    """
    if num_devices == 1:
        return None
    parts, group = config.optimizer.accumulate_steps, config.bn_group_size
    own = config.batch_size // parts // num_devices
    if has_whole_groups(config, config.batch_size // num_devices):
        return None
    if group is None:
        return (
            f"Batch norm's statistics are those of all examples (bn_group_size is empty): "
            f"{num_devices} devices exchange them in every layer."
        )
    return (
        f"Batch norm's groups of {group} examples (bn_group_size) lie over several devices, of "
        f"{own} examples each, which exchange the statistics in every layer. Without that: "
        f"--config.batch_size={parts * num_devices * group * max(round(own / group), 1)}."
    )


def has_whole_groups(config: ConfigDict, per_device: int) -> bool:
    """Whether a device with so many examples of a batch shares no group of batch norm."""
    group = config.bn_group_size
    return group is not None and per_device // config.optimizer.accumulate_steps % group == 0


def _multiples(value: int, unit: int) -> str:
    """Return the multiples of `unit` on either side of `value`, as advice."""
    below, above = value // unit * unit, (value // unit + 1) * unit
    return f"{below} or {above}" if below else f"{above}"


def diff(saved: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Return the fields in which two configs differ, those of `MAY_CHANGE` left out.

    Args:
      saved: A config or the dictionary read from config.json: lists and tuples are the same.
      given: Likewise.

    Returns:
      Lines such as "optimizer.momentum: 0.9 in the run, 0.8 given", sorted; empty = no difference.
    """
    return [
        f"{path}: {old} in the run, {new} given"
        for path, (old, new) in changes(saved, given).items()
        if not any(fnmatch.fnmatchcase(path, pattern) for pattern in MAY_CHANGE)
    ]


def changes(saved: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return {path: (saved value, given value)} of all fields that differ, as JSON text."""
    old, new = (
        {path: json.dumps(value, sort_keys=True) for path, value in flatten(plain(c)).items()}
        for c in (saved, given)
    )
    # An optional field that one of the two versions of the program did not know yet is empty.
    return {
        path: (old.get(path, "nothing"), new.get(path, "nothing"))
        for path in sorted(old.keys() | new.keys())
        if old.get(path, "null") != new.get(path, "null")
    }


def plain(config: Any) -> Any:
    """Return a config as nested dictionaries, lists and scalars, as JSON would give it back."""
    if isinstance(config, Mapping | ConfigDict):
        return {str(name): plain(config[name]) for name in config}
    if isinstance(config, list | tuple):
        return [plain(value) for value in config]
    if config is None or isinstance(config, bool | int | float | str):
        return config
    raise ConfigError(f"a config cannot hold {config!r}: only text, numbers and tuples of them.")


def from_plain(saved: Mapping[str, Any]) -> ConfigDict:
    """Rebuild a config from what config.json holds, so that overrides work on it again.

    Raises:
      ConfigError: A field of another type than this version of the program gives it.
    """
    known = base(saved.get("family", "plain"))
    known.unlock()
    try:
        _fill(known, saved)
    except TypeError as error:
        raise ConfigError(f"the saved config does not fit this version: {error}") from error
    known.lock()
    return known


def _fill(config: ConfigDict, saved: Mapping[str, Any]) -> None:
    for name, value in saved.items():
        if isinstance(value, Mapping):
            if name not in config:
                config[name] = ConfigDict()
            _fill(config[name], value)
        elif value is None and name not in config:
            config[name] = placeholder(object)
        else:
            config[name] = _tuples(value)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value

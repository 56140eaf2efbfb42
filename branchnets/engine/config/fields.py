"""What a config file is written with: the fields, its arguments, its smoke size."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from branchnets import families
from branchnets.data import spec, streams
from branchnets.errors import ConfigError, nearest


def base(family: str = "plain") -> ConfigDict:
    """Return a config with every field that engine, data and a family know, at its default.

    Fields marked optional are empty (None) until a config or an override sets them. The result is
    locked, so that a misspelt field in a config file is an error; `model` alone is open, since
    what it takes besides `name` depends on the model.

    Args:
      family: The family, which adds fields of its own.

    Returns:
      A ConfigDict with these fields:

      - `seed`, `family`, `batch_size` (global, over all devices and hosts), `epochs`,
        `dtype` ("float32" or "bfloat16": what the network computes in; parameters are float32),
        `bn_group_size` (optional: examples that share batch-norm statistics; empty = all).
      - `model.name`, and whatever else `create_model` takes.
      - `data`: `name`, `data_dir` (optional: a folder, or a URL of records that tfds has
        prepared), `label` (which of a dataset's labels), `train_size`
        (optional: a fixed class-balanced subset), `validation_size` (optional: held out of the
        training split), `split_seed`, `image_size` (optional: resize to), `pad_to` (optional),
        `crop_size` (optional: of the square that the network is given of an image, at a random
        place in training and in the middle in evaluation), `per_pixel_mean` (optional: subtract the
        mean image of the training split in place of its mean colour, before images are cropped),
        `channels` (optional: of `folder`, `tfds/` and `fake`), `num_classes` and `fake_size`
        (optional: of the fake source), `mean` and `std` (optional: per channel, pixels from 0 to 1,
        in place of the data set's own), `stream` (optional: decode images as they are needed
        instead of holding them all; empty = as the data set does), and of streamed sets `workers`
        (optional: processes that decode; empty = by the number of cores, 0 = threads of this
        process), `decoder` ("auto", "opencv" or "pillow") and `on_error` (what an image that cannot
        be read does: "stop" or "skip").
      - `augment`: `crop_padding` (pixels around an image before it is cropped), `flip`,
        `randaugment_layers`, `randaugment_magnitude`, `order` ("crop_first" or
        "randaugment_first"), `crop_area` (optional: range of the share of a streamed image's area
        that a random resized crop takes, such as (0.08, 1.0)) and `crop_ratio` (range of its width
        over its height), `mixup` and `cutmix` (the alpha of each; 0 = off).
      - `loss.label_smoothing` (the share of the target that is spread evenly over all classes).
      - `init`: `source` (optional: a run directory or a weights file to start from), `checkpoint`
        ("latest", "best" or a step, of a run), `new_head` (start with a fresh last layer even where
        the classes are as many).
      - `ema.decay` (of the running average of weights and statistics that is evaluated; 0 = off).
      - `bn_reestimation.batches` (training batches over which the batch-norm statistics are taken
        anew, with frozen weights, before the last evaluation; 0 = off).
      - `optimizer`: `name`, `base_learning_rate` (for 256 examples: the rate used is
        base_learning_rate * batch_size / 256) or `learning_rate` (optional; the rate itself, and
        the stronger of the two), `momentum`, `nesterov`, `weight_decay`, `weight_decay_exclude`
        (regular expressions over parameter paths), `grad_clip` (optional: largest global norm),
        `accumulate_steps` (parts that the batch of one update is computed in).
      - `schedule`: `name` ("cosine", "step", "constant"), `warmup_epochs`,
        `final_learning_rate` (of the cosine), `update_every` ("epoch" or "step": how often the rate
        changes), `milestones` (epochs) and `factor` (of the steps).
      - `eval`: `batch_size` (optional; empty = that of training), `every_epochs` (0 = only at the
        end), `split` (optional; empty = validation if there is one, else test), `image_size`
        (optional: side of the images that are evaluated; empty = that of training) and
        `crop_fraction` (of streamed images: the shorter side is resized to image size /
        crop_fraction before the middle is cropped; 1 = the largest middle part).
      - `checkpoint`: `every_epochs`, `every_steps` (optional; replaces every_epochs),
        `keep_latest`, `keep_best`, `best_metric`.
      - `log.every_steps`.
      - `profile` (optional: "START:STOP", the steps of which a trace is written into the run
        directory's profile/).
    """
    config = ConfigDict(
        dict(
            seed=0,
            family=family,
            batch_size=128,
            epochs=1,
            dtype="float32",
            bn_group_size=placeholder(int),
            model=dict(name=""),
            data=dict(
                name="",
                data_dir=placeholder(str),
                label="label",
                train_size=placeholder(int),
                validation_size=placeholder(int),
                split_seed=0,
                image_size=placeholder(int),
                pad_to=placeholder(int),
                crop_size=placeholder(int),
                per_pixel_mean=placeholder(bool),
                num_classes=placeholder(int),
                channels=placeholder(int),
                fake_size=placeholder(int),
                mean=placeholder(tuple),
                std=placeholder(tuple),
                stream=placeholder(bool),
                workers=placeholder(int),
                decoder="auto",
                on_error="stop",
            ),
            augment=dict(
                crop_padding=0,
                flip=False,
                randaugment_layers=0,
                randaugment_magnitude=0.0,
                order="crop_first",
                crop_area=placeholder(tuple),
                crop_ratio=(3 / 4, 4 / 3),
                mixup=0.0,
                cutmix=0.0,
            ),
            loss=dict(label_smoothing=0.0),
            init=dict(source=placeholder(str), checkpoint="latest", new_head=False),
            ema=dict(decay=0.0),
            bn_reestimation=dict(batches=0),
            optimizer=dict(
                name="sgd",
                base_learning_rate=0.1,
                learning_rate=placeholder(float),
                momentum=0.9,
                nesterov=True,
                weight_decay=0.0,
                weight_decay_exclude=(),
                grad_clip=placeholder(float),
                accumulate_steps=1,
            ),
            schedule=dict(
                name="cosine",
                warmup_epochs=0.0,
                final_learning_rate=0.0,
                update_every="epoch",
                milestones=(),
                factor=0.1,
            ),
            eval=dict(
                batch_size=placeholder(int),
                every_epochs=1,
                split=placeholder(str),
                image_size=placeholder(int),
                crop_fraction=1.0,
            ),
            checkpoint=dict(
                every_epochs=1,
                every_steps=placeholder(int),
                keep_latest=2,  # one alone, when damaged, would be the whole run
                keep_best=1,
                best_metric="accuracy",
            ),
            log=dict(every_steps=50),
            profile=placeholder(str),
        )
    )
    for section, fields in families.config_fields(family).items():
        if section not in config:
            config[section] = ConfigDict()
        for name, default in fields.items():
            empty = isinstance(default, type)  # a type stands for an optional field of that type
            config[section][name] = placeholder(default) if empty else default
    config.lock()
    config.model.unlock()
    return config


class UnknownArgument(ConfigError):
    """An argument that a config file does not take.

    Args:
      name: the argument.
      known: those that it takes.
    """

    def __init__(self, name: str, known: Iterable[str]):
        self.known = tuple(sorted(known))
        super().__init__(
            f"unknown config argument {name!r}. {nearest(name, self.known)} "
            f"This config takes: {', '.join(self.known) or 'none'}."
        )


def parse_arg(arg: str | None, **defaults: Any) -> ConfigDict:
    """Read the text after the colon of `--config=file.py:smoke,seed=3`.

    The type of a value is the type of its default; a switch may be bare (`smoke`) or spelt out
    (`smoke=false`); an argument whose default is None takes any Python literal, or else a string.

    Args:
      arg: Arguments separated by commas, or None for none.
      **defaults: Every argument that the config file knows, with its default.

    Returns:
      The defaults with the given arguments in their place, to be read as attributes.

    Raises:
      ConfigError: An unknown argument, one given twice, or a value of the wrong type.

    >>> args = parse_arg("smoke,seed=3", smoke=False, seed=0, rate=0.1)
    >>> args.smoke, args.seed, args.rate
    (True, 3, 0.1)
    """
    values = dict(defaults)
    seen = set()
    for item in filter(None, (part.strip() for part in (arg or "").split(","))):
        name, has_value, text = (part.strip() for part in item.partition("="))
        if name not in defaults:
            raise UnknownArgument(name, defaults)
        if name in seen:
            raise ConfigError(f"config argument {name!r} is given twice.")
        seen.add(name)
        values[name] = _convert(name, text if has_value else None, defaults[name])
    return ConfigDict(values)


def _convert(name: str, text: str | None, default: Any) -> Any:
    if isinstance(default, bool):
        value = {None: True, "true": True, "1": True, "false": False, "0": False}.get(
            text.lower() if text is not None else None
        )
        if value is None:
            raise ConfigError(f"config argument {name!r} is true or false, not {text!r}.")
        return value
    if text is None:
        raise ConfigError(f"config argument {name!r} needs a value: {name}=...")
    if default is None:
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return text
    if not isinstance(default, int | float | str):
        raise TypeError(f"{name}: a default is a bool, int, float, str or None, not {default!r}")
    try:
        return type(default)(text)
    except ValueError:
        kind = {int: "a whole number", float: "a number"}[type(default)]
        raise ConfigError(f"config argument {name!r} is {kind}, not {text!r}.") from None


def smoke(
    config: ConfigDict,
    *,
    image_size: int = 8,
    batch_size: int = 8,
    steps: int = 2,
    model: Mapping[str, Any] | None = None,
) -> ConfigDict:
    """Shrink a config in place to one epoch of a few steps on the fake source, and return it.

    What is trained and how (family, losses, augmentation, optimizer, kind of schedule) stays as
    the config has it; sizes alone change. A depth or width comes from the config itself. Where
    images are streamed, made-up image files are, decoded in threads of this process.

    Args:
      config: A config made with `base`.
      image_size: Side in pixels of what the network is given; fake images are two pixels larger
        where the config crops them.
      batch_size: Examples of one batch and, when gradients are accumulated, of each of its two
        parts.
      steps: Updates of the one epoch.
      model: Fields of `config.model` to set, such as `dict(depths=(1, 1, 1))`.
    """
    if config.optimizer.accumulate_steps > 1:
        config.optimizer.accumulate_steps = 2
    config.batch_size = batch_size * config.optimizer.accumulate_steps
    config.epochs = 1
    if config.bn_group_size is not None:  # two groups a part, so that grouping stays at work
        config.bn_group_size = min(config.bn_group_size, max(batch_size // 2, 1))
    for name, value in (model or {}).items():
        config.model[name] = value
    own, data = spec(None, config.data), config.data
    if streams(data):
        data.stream, data.workers = True, 0
    data.name, data.image_size = "fake", image_size
    data.num_classes, data.channels = own.num_classes, own.image_shape[-1]
    data.fake_size = steps * config.batch_size
    data.data_dir = data.train_size = data.validation_size = data.pad_to = None
    if data.crop_size is not None:
        data.image_size, data.crop_size = image_size + 2, image_size
    data.label = "label"
    config.schedule.warmup_epochs = min(config.schedule.warmup_epochs, 0.5)
    config.eval.batch_size = None
    config.eval.every_epochs = config.checkpoint.every_epochs = config.log.every_steps = 1
    config.checkpoint.every_steps = None
    return config

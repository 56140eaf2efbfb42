"""A config file's arguments, and its smoke size."""

from __future__ import annotations

import pytest

from branchnets.engine import config as c
from branchnets.engine.config import ConfigError


def test_arguments_are_typed_by_their_defaults():
    args = c.parse_arg(
        "smoke,seed=3, k = 4,connectivity=full,rate=1,extra=(1+2j)",
        smoke=False,
        seed=0,
        k=8,
        connectivity="learned",
        rate=0.5,
        extra=None,
        other=2,
    )
    assert args.to_dict() == dict(
        smoke=True, seed=3, k=4, connectivity="full", rate=1.0, extra=1 + 2j, other=2
    )
    assert isinstance(args.rate, float)


@pytest.mark.parametrize("text", [None, "", ","])
def test_no_arguments_give_the_defaults(text):
    assert c.parse_arg(text, smoke=False, seed=7).to_dict() == dict(smoke=False, seed=7)


@pytest.mark.parametrize("text,value", [("on", True), ("on=true", True), ("on=False", False)])
def test_a_switch_is_bare_or_spelt_out(text, value):
    assert c.parse_arg(text, on=False).on is value


@pytest.mark.parametrize(
    "text,message",
    [
        ("smok", "'smok'.*Did you mean 'smoke'.*seed, smoke"),
        ("seed", "'seed' needs a value"),
        ("seed=x", "'seed' is a whole number, not 'x'"),
        ("seed=1.5", "whole number"),
        ("seed=1,seed=2", "twice"),
        ("smoke=maybe", "true or false"),
    ],
)
def test_a_wrong_argument_says_what_is_wrong(text, message):
    with pytest.raises(ConfigError, match=message):
        c.parse_arg(text, smoke=False, seed=0)


def test_smoke_shrinks_what_it_should(file):
    config = c.load(f"{file}:smoke,seed=4")
    assert (config.seed, config.data.name, config.data.num_classes) == (4, "fake", 10)
    assert (config.model.depth, config.model.ratios) == (1, ((1, 2), (3, 4)))
    c.validate(config, 8)
    resolved = c.resolve(config, steps_per_epoch=config.data.fake_size // config.batch_size)
    assert resolved.total_steps == 2


def test_smoke_keeps_accumulation_grouping_and_warmup_at_work():
    config = c.base()
    config.optimizer.accumulate_steps = 4
    config.bn_group_size = 64
    config.epochs, config.schedule.warmup_epochs = 300, 5
    config.data.name = "digits"
    c.smoke(config)
    assert (config.data.num_classes, config.data.channels) == (10, 1)
    c.validate(config, 8)
    assert (config.optimizer.accumulate_steps, config.bn_group_size) == (2, 4)
    steps = config.data.fake_size // config.batch_size
    assert c.resolve(config, steps_per_epoch=steps).warmup_steps == 1

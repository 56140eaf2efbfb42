"""What is derived from a config, whether it can run, and how two differ."""

from __future__ import annotations

import json
import re

import pytest

from branchnets.engine import config as c
from branchnets.engine.config import ConfigError


def test_derived_values_follow_the_overrides(file):
    config = c.load(
        file,
        {
            "batch_size": "512",
            "epochs": 4,
            "schedule.warmup_epochs": 1.5,
            "schedule.milestones": (1, 3),
            "optimizer.base_learning_rate": 0.4,
            "optimizer.accumulate_steps": 2,
        },
    )
    before = config.to_json()
    got = c.resolve(config, steps_per_epoch=10)
    assert got.learning_rate == pytest.approx(0.8)
    assert (got.total_steps, got.warmup_steps, got.milestone_steps) == (40, 15, (10, 30))
    assert got.microbatch_size == 256
    assert (got.eval_every_steps, got.checkpoint_every_steps, got.log_every_steps) == (10, 10, 50)
    assert config.to_json() == before
    assert json.loads(json.dumps(got.as_dict()))["total_steps"] == 40


def test_absolute_rate_and_explicit_intervals_win(file):
    config = c.load(
        file,
        {
            "optimizer.learning_rate": 0.3,
            "checkpoint.every_steps": 7,
            "eval.every_epochs": 0,
            "eval.batch_size": 50,
        },
    )
    got = c.resolve(config, steps_per_epoch=10)
    assert got.learning_rate == 0.3
    assert (got.checkpoint_every_steps, got.eval_every_steps) == (7, got.total_steps)


def test_a_split_smaller_than_a_batch_is_refused(file):
    with pytest.raises(ConfigError, match="smaller than one batch of 128"):
        c.resolve(c.load(file), steps_per_epoch=0)


@pytest.mark.parametrize(
    "overrides,devices,message",
    [
        (
            {"batch_size": 12},
            8,
            "batch_size is 12, which 8 devices do not divide; try --config.batch_size=8 or 16",
        ),
        ({"batch_size": 4}, 8, "batch_size=8"),
        ({"batch_size": 96, "bn_group_size": 64}, 1, "bn_group_size.*64 or 128"),
        ({"batch_size": 10, "optimizer.accumulate_steps": 4}, 1, "accumulate_steps.*8 or 12"),
        (
            {"batch_size": 16, "optimizer.accumulate_steps": 4},
            8,
            "batch_size / optimizer.accumulate_steps is 4.*--config.batch_size=32",
        ),
        (
            {"batch_size": 256, "optimizer.accumulate_steps": 4, "bn_group_size": 48},
            8,
            "batch-norm group.*192 or 384",
        ),
        (
            {"batch_size": 24, "augment.cutmix": 1.0},
            8,
            "batch_size is 24, which 16 .2 on each device, for mixup and cutmix take pairs. do not "
            "divide; try --config.batch_size=16 or 32",
        ),
        ({"batch_size": 7, "augment.mixup": 0.2}, 1, "--config.batch_size=6 or 8"),
        ({"augment.mixup": -0.2}, 1, "augment.mixup is -0.2; it must be at least 0"),
        ({"augment.cutmix": -1.0}, 1, "augment.cutmix is -1.0; it must be at least 0"),
        ({"loss.label_smoothing": 1.0}, 1, "label_smoothing is 1.0; it must be below 1"),
        ({"ema.decay": 1.0}, 1, "ema.decay is 1.0; it must be below 1"),
        ({"ema.decay": -0.1}, 1, "ema.decay is -0.1; it must be at least 0"),
        ({"eval.batch_size": 0}, 8, "eval.batch_size is 0.*at least 1"),
        ({"optimizer.learning_rate": 0.0}, 8, "learning_rate is 0.0; it must be above 0"),
        ({"batch_size": 0}, 1, "batch_size is 0; it must be at least 1"),
        ({"epochs": 0}, 1, "epochs is 0"),
        ({"optimizer.weight_decay": float("nan")}, 1, "weight_decay"),
        ({"dtype": "bfloat"}, 1, "Did you mean 'bfloat16'"),
        ({"schedule.name": "cosin"}, 1, "Did you mean 'cosine'"),
        ({"schedule.warmup_epochs": 10.0}, 1, "warmup_epochs"),
    ],
)
def test_a_config_that_cannot_run_says_what_to_change(file, overrides, devices, message):
    config = c.load(file, overrides)
    with pytest.raises(ConfigError, match=message):
        c.validate(config, devices)


@pytest.mark.parametrize("parts,devices,group", [(1, 8, None), (4, 8, None), (2, 8, 6), (3, 1, 7)])
def test_the_advice_of_validate_is_valid(file, parts, devices, group):
    config = c.load(file, {"optimizer.accumulate_steps": parts, "bn_group_size": group})
    seen = 0
    for batch in range(1, 200):
        config.batch_size = batch
        try:
            c.validate(config, devices)
        except ConfigError as error:
            advice = re.search(r"batch_size=(\d+)(?: or (\d+))?\.$", str(error))
            for better in filter(None, advice.groups()):
                config.batch_size = int(better)
                c.validate(config, devices)
                seen += 1
    assert seen > 100


@pytest.mark.parametrize(
    ("overrides", "devices", "told"),
    [
        ({}, 1, None),
        ({}, 8, "statistics are those of all examples"),
        ({"bn_group_size": 8}, 8, None),
        ({"bn_group_size": 16}, 8, "of 8 examples each"),
        ({"bn_group_size": 8, "optimizer.accumulate_steps": 2}, 8, "of 4 examples each"),
        ({"bn_group_size": 8, "optimizer.accumulate_steps": 2}, 4, None),
    ],
)
def test_groups_of_batch_norm_that_devices_share_are_told(file, overrides, devices, told):
    config = c.load(file, {"batch_size": 64, **overrides})
    text = c.spread_groups(config, devices)
    assert (text is None) is (told is None)
    if told:
        assert told in text
        if advice := re.search(r"batch_size=(\d+)", text):
            config.batch_size = int(advice[1])
            c.validate(config, devices)
            assert c.spread_groups(config, devices) is None


def test_evaluation_alone_does_not_mind_the_training_batch(file):
    c.validate(c.load(file, {"batch_size": 12, "eval.batch_size": 8}), 8, train=False)


def test_diff_names_fields_and_both_values(file):
    saved = json.loads(json.dumps(c.plain(c.load(file))))
    given = c.load(file, {"optimizer.momentum": 0.8, "model.ratios": ((1, 2),), "seed": 3})
    assert c.diff(saved, given) == [
        "model.ratios: [[1, 2], [3, 4]] in the run, [[1, 2]] given",
        "optimizer.momentum: 0.9 in the run, 0.8 given",
        "seed: 0 in the run, 3 given",
    ]


def test_diff_ignores_what_does_not_change_the_result(file):
    saved = c.plain(c.load(file))
    given = c.load(
        file,
        {
            "log.every_steps": 1,
            "checkpoint.every_steps": 2,
            "checkpoint.keep_best": 4,
            "eval.every_epochs": 3,
            "eval.batch_size": 8,
            "data.data_dir": "/x",
        },
    )
    assert c.diff(saved, given) == []
    assert len(c.changes(saved, given)) == 6
    assert c.diff(saved, c.load(file)) == []


def test_a_field_of_one_version_only_is_a_difference_unless_empty():
    assert c.diff({"a": 1, "b": None}, {"a": 1, "c": 2}) == ["c: nothing in the run, 2 given"]


def test_a_config_comes_back_from_json_and_takes_overrides(file):
    config = c.load(file, {"bn_group_size": 64})
    back = c.from_plain(json.loads(json.dumps(c.plain(config))))
    assert c.diff(config, back) == []
    assert back.model.ratios == config.model.ratios
    c.apply_overrides(
        back,
        [
            "--config.data.data_dir=/d",
            "--config.eval.batch_size=5",
            "--config.bn_group_size=none",
            "--config.schedule.milestones=(1,2)",
        ],
    )
    assert (back.data.data_dir, back.eval.batch_size, back.bn_group_size) == ("/d", 5, None)
    assert back.schedule.milestones == (1, 2)
    with pytest.raises(ConfigError, match="Did you mean 'coded.mu'"):
        c.apply_overrides(back, ["--config.coded.nu=1"])


def test_only_plain_values_are_written():
    with pytest.raises(ConfigError, match="cannot hold"):
        c.plain({"a": object()})

"""Config files, their arguments and overrides, and what is derived from them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap

import pytest
from absl import flags

from branchnets.engine import config as c
from branchnets.engine.config import ConfigError

FILE = '''
from branchnets.engine import config as c

def get_config(arg=None):
    """A config of a test."""
    args = c.parse_arg(arg, smoke=False, seed=0, k=8, rate=0.5, connectivity="learned")
    config = c.base("coded")
    config.seed = args.seed
    config.model.name = f"net_{args.k}_{args.connectivity}"
    config.data.name = "digits"
    config.model.ratios = ((1, 2), (3, 4))
    config.epochs = 10
    config.optimizer.weight_decay_exclude = ("bias",)
    config.optimizer.grad_clip = 1.0
    if args.smoke:
        return c.smoke(config, model=dict(depth=1))
    return config
'''


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "experiment.py"
    path.write_text(FILE)
    return path


def leaves(config):
    return c.flatten(config)


# Arguments of a config file


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


# Loading and overriding


def test_a_file_is_loaded_by_path_with_arguments(file, monkeypatch, tmp_path):
    config = c.load(f"{file}:seed=3,k=4,connectivity=full")
    assert (config.seed, config.model.name) == (3, "net_4_full")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert c.load("../experiment.py:seed=5").seed == 5


def test_every_field_of_base_can_be_overridden_also_the_empty_ones(file):
    """Each field in turn, with a value of its type, as a word and as a value."""
    from branchnets.engine.fields import base

    samples = {int: 3, float: 0.25, str: "text", bool: True, tuple: (1, 2)}
    fresh = base("coded")
    for path in leaves(fresh):
        section, _, name = path.rpartition(".")
        holder = fresh[section] if section else fresh
        if path == "family":  # another one has other fields
            continue
        value = samples[holder.get_type(name)]
        assert leaves(c.load(file, [f"--config.{path}={value}"]))[path] == value, path
        assert leaves(c.load(file, {path: value}))[path] == value, path
        assert leaves(c.load(file, {path: str(value)}))[path] == value, path


def test_every_empty_field_of_base_can_be_emptied_again(file):
    optional = [path for path, value in leaves(c.base("coded")).items() if value is None]
    assert "bn_group_size" in optional and "data.data_dir" in optional
    for path in optional:
        texts = {"data.data_dir": "/x", "eval.split": "/x"}
        texts |= {"model.active": "(3,)", "model.head_bias": "true", "data.per_pixel_mean": "true"}
        texts |= {"data.stream": "true"}
        value = texts.get(path, "3")
        full = c.load(file, [f"--config.{path}={value}"])
        assert leaves(full)[path] is not None
        assert leaves(c.apply_overrides(full, [f"--config.{path}=none"]))[path] is None
        both = [f"--config.{path}={value}", f"--config.{path}=none"]
        assert leaves(c.load(file, both))[path] is None
        assert leaves(c.load(file, both[::-1]))[path] is not None
    assert c.load(file, {"optimizer.grad_clip": None}).optimizer.grad_clip is None


@pytest.mark.parametrize(
    "words,value",
    [
        (["=('a','b')"], ("a", "b")),
        (["=.*/scale"], (".*/scale",)),
        (["=a", "=b"], ("a", "b")),
        (["=()"], ()),
    ],
)
def test_tuples_are_overridden(file, words, value):
    name = "--config.optimizer.weight_decay_exclude"
    config = c.load(file, [name + word for word in words])
    assert config.optimizer.weight_decay_exclude == value


def test_nested_tuples_and_family_sections_are_overridden(file):
    config = c.load(
        file,
        ["--config.model.ratios=((4,8),(2,8))", "--config.coded.mu=1", "--config.coded.schemes=x"],
    )
    assert config.model.ratios == ((4, 8), (2, 8))
    assert (config.coded.mu, config.coded.schemes) == (1.0, ("x",))


def test_bare_and_negated_switches(file):
    config = c.load(file, ["--config.augment.flip", "--noconfig.optimizer.nesterov"])
    assert config.augment.flip is True and config.optimizer.nesterov is False


@pytest.mark.parametrize(
    "word,message",
    [
        ("optimizer.momentun=1", "unknown config field 'optimizer.momentun'.*'optimizer.momentum'"),
        ("learning_rate=1", "Did you mean 'optimizer.learning_rate'"),
        ("optimiser.weight_decay=1", "Did you mean 'optimizer.weight_decay'"),
        ("batchsize=1", "Did you mean 'batch_size'"),
        ("optimizer=1", "is a section.*optimizer.momentum"),
        ("seed.x=1", "unknown config field 'seed.x'"),
        ("zzzzzz=1", "unknown config field 'zzzzzz'.*Known: .*batch_size"),
        ("=1", "unknown config field ''"),
        ("epochs=1.5", "epochs"),
        ("epochs=none", "epochs"),
        ("epochs", "'?epochs'? needs a value"),
        ("augment.flip=maybe", "augment.flip"),
        ("schedule.milestones=(1,", "schedule.milestones"),
    ],
)
def test_a_wrong_override_says_what_is_wrong(file, word, message):
    with pytest.raises(ConfigError, match=message):
        c.load(file, [f"--config.{word}"])


@pytest.mark.parametrize(
    "override,message",
    [
        ({"epochs": None}, "'epochs' cannot be empty"),
        ({"epochs": 1.5}, "'epochs' is of type int, not 1.5"),
        ({"epoch": 1}, "Did you mean 'epochs'"),
    ],
)
def test_a_wrong_override_value_says_what_is_wrong(file, override, message):
    with pytest.raises(ConfigError, match=message):
        c.load(file, override)


def test_a_wrong_file_says_what_is_wrong(file, tmp_path):
    with pytest.raises(ConfigError, match="no config file .*Did you mean .*experiment.py"):
        c.load(tmp_path / "experimnet.py")
    with pytest.raises(ConfigError, match="no config file"):
        c.load(tmp_path / "nowhere" / "x.py")
    for text, message in [
        ("x = 1", "no function get_config"),
        ("def get_config(): return 1", "returned int"),
        (
            "from branchnets.engine.config import base\n"
            "def get_config():\n"
            "    b = base('coded')\n"
            "    b.unlock()\n"
            "    b.coded.k = None\n"
            "    return b",
            "'coded.k' has no type",
        ),
        (
            "from branchnets.engine.config import base\n"
            "def get_config():\n"
            "    b = base()\n"
            "    b.unlock()\n"
            "    b.own = {'update': 1}\n"
            "    return b",
            "called 'own.update'",
        ),
    ]:
        bad = tmp_path / "bad.py"
        bad.write_text(text)
        with pytest.raises(ConfigError, match=message):
            c.load(bad)
    bad.write_text("from branchnets.engine.config import base\ndef get_config(): return base()")
    with pytest.raises(ConfigError, match="takes no arguments"):
        c.load(f"{bad}:smoke")


def test_a_misspelt_field_in_a_file_is_an_error(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text(
        "from branchnets.engine.config import base\n"
        "def get_config():\n    b = base()\n    b.optimizer.momentun = 0.5\n    return b\n"
    )
    with pytest.raises(AttributeError, match="momentun"):
        c.load(bad)


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


# The command line


def program_flags():
    own = flags.FlagValues()
    flags.DEFINE_string("workdir", "runs/x", "Where to.", flag_values=own)
    flags.DEFINE_enum("mode", "train", ["train", "eval"], "What to do.", flag_values=own)
    return own


def test_the_command_line_is_taken_apart(file):
    own = program_flags()
    command = c.parse_command_line(
        [
            "main",
            f"--config={file}:seed=2",
            "--config.epochs=3",
            "--workdir=w",
            "--noconfig.augment.flip",
            "--mode",
            "eval",
            "--config.bn_group_size=4",
        ],
        own,
    )
    assert (own.workdir, own.mode) == ("w", "eval")
    config = command.load()
    assert (config.seed, config.epochs, config.bn_group_size) == (2, 3, 4)
    again = c.parse_command_line(["main", "--config", str(file)], program_flags()).load()
    assert again.epochs == 10  # nothing is left behind by an earlier parse


@pytest.mark.parametrize(
    "words,message",
    [
        (["--workdri=x"], "unknown flag --workdri. Did you mean 'workdir'"),
        (["--confi=x"], "Did you mean 'config'"),
        (["--mode=trian"], "mode"),
        (["--config=a.py", "--config=b.py"], "twice"),
        (["--config"], "needs a value"),
        (["--config="], "needs a value"),
        (["--config.seed", "3"], "'3' is no flag.*one word"),
        ([], "no config given"),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong(words, message):
    with pytest.raises(ConfigError, match=message):
        c.parse_command_line(["main", *words], program_flags()).load()


def test_help_prints_the_flags(capsys):
    with pytest.raises(SystemExit) as stop:
        c.parse_command_line(["main", "--help"], program_flags(), "usage: main")
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "usage: main" in out and "--workdir" in out


# Derived values


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


def test_evaluation_alone_does_not_mind_the_training_batch(file):
    c.validate(c.load(file, {"batch_size": 12, "eval.batch_size": 8}), 8, train=False)


# Two configs compared


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


def test_configs_import_neither_jax_nor_orbax_nor_tensorflow():
    code = textwrap.dedent("""
        import sys
        import branchnets.engine.config
        bad = {"orbax", "tensorflow", "tensorflow_datasets", "tensorboardX"} & set(sys.modules)
        sys.exit(str(bad) if bad else 0)
    """)
    subprocess.run([sys.executable, "-c", code], check=True)

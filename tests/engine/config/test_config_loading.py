"""Config files, overrides, and the command line."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from absl import flags

from branchnets.engine import config as c
from branchnets.engine.config import ConfigError


def leaves(config):
    return c.flatten(config)


def test_a_file_is_loaded_by_path_with_arguments(file, monkeypatch, tmp_path):
    config = c.load(f"{file}:seed=3,k=4,connectivity=full")
    assert (config.seed, config.model.name) == (3, "net_4_full")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert c.load("../experiment.py:seed=5").seed == 5


def test_every_field_of_base_can_be_overridden_also_the_empty_ones(file):
    """Each field in turn, with a value of its type, as a word and as a value."""
    from branchnets.engine.config.fields import base

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


def test_flags_are_listed_once():
    own = program_flags()
    flags.DEFINE_string("config", None, "as the trainer has it", flag_values=own)
    with pytest.raises(ConfigError, match="Known: ") as caught:
        c.parse_command_line(["main", "--zzzz"], own)
    assert str(caught.value).count("config") == 1


def test_help_prints_the_flags(capsys):
    with pytest.raises(SystemExit) as stop:
        c.parse_command_line(["main", "--help"], program_flags(), "usage: main")
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "usage: main" in out and "--workdir" in out


def test_configs_import_neither_jax_nor_orbax_nor_tensorflow():
    code = textwrap.dedent("""
        import sys
        import branchnets.engine.config
        bad = {"orbax", "tensorflow", "tensorflow_datasets", "tensorboardX"} & set(sys.modules)
        sys.exit(str(bad) if bad else 0)
    """)
    subprocess.run([sys.executable, "-c", code], check=True)

"""What README says is run: its Python examples, its command lines, its table of models."""

import importlib
import pathlib
import re
import shlex

import jax
import jax.numpy as jnp
import pytest

import branchnets
from branchnets import main
from branchnets.engine import config as configs

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
EXAMPLES = [code for code in PYTHON if "create_model" in code]
TOUR_EXAMPLES = [code for code in PYTHON if "load_run" in code]


def _commands(text):
    return [
        line.strip().split("#")[0].strip()
        for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
        for line in block.replace("\\\n", " ").splitlines()
        if line.strip().startswith("python -m branchnets.")
    ]


def _section(title):
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


#: On a finished run, or beside one.
TOUR = _commands(_section("What the branches do: a tour"))
LISTENING = _commands(_section("Who listens to whom: MaskConnect"))
COMMANDS = [command for command in _commands(README) if command not in (*TOUR, *LISTENING)]


@pytest.mark.parametrize("code", EXAMPLES, ids=range(len(EXAMPLES)))
def test_python_examples_run(code, capsys):
    assert len(code.strip().splitlines()) <= 30
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out


def test_there_are_examples_and_commands():
    assert len(EXAMPLES) == 2 and len(COMMANDS) >= 2
    assert len(TOUR_EXAMPLES) == 1 and len(TOUR) == 5 and len(LISTENING) == 5


@pytest.mark.slow
def test_the_tour_runs(tmp_path, monkeypatch, capsys):
    """From a small run of the first command to everything that the tour does with it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jax, "devices", lambda *a, real=jax.devices: real(*a)[:1])
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    small = [
        "--config.epochs=2",
        "--config.data.train_size=320",
        "--config.model.active=((10,),(5,),(3,))",
    ]
    first = ["main", "--config=configs/coded_digits.py", "--workdir=runs/coded_digits"]
    assert main.main([*first, *small]) == 0
    exec(compile(TOUR_EXAMPLES[0], "README.md", "exec"), {})
    assert "parameters find" in capsys.readouterr().out
    for command in TOUR:
        _run(command)
    assert (tmp_path / "runs/coded_digits/report/index.html").exists()
    assert (tmp_path / "runs/threes/classifier.json").exists()


@pytest.mark.slow
def test_the_tour_of_maskconnect_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jax, "devices", lambda *a, real=jax.devices: real(*a)[:1])
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    small = [
        "--config.epochs=2",
        '--config.maskconnect.phases=(("learn",1.0),("tune",1.0))',
        "--config.data.train_size=320",
        "--config.model.depths=(1,1,1)",
    ]
    train, *rest = LISTENING
    _run(train, *small)
    _run(train.replace("runs/listen", "runs/masks/other"), *small, "--config.seed=1")
    for command in rest:
        _run(command)
    assert (tmp_path / "runs/listen/report/fig3_connectivity.svg").exists()
    assert (tmp_path / "runs/pruned/classifier.json").exists()


def _run(command, *more):
    name, *words = shlex.split(command)[2:]
    if name.endswith("sweep"):
        words.append("--dry_run")  # many runs; the tests of sweeps train some
    words = [*words, *more]
    if name == "branchnets.main":
        words = ["main", *words]
    assert not importlib.import_module(name).main(words), command


def test_training_commands_are_of_configs_that_exist(monkeypatch):
    """Whose smoke size the tests of the configs train."""
    monkeypatch.chdir(ROOT)
    commands = [shlex.split(command) for command in COMMANDS if "--config=" in command]
    assert len(commands) >= 2
    for words in commands:
        (file,) = [word.partition("=")[2] for word in words if word.startswith("--config=")]
        config = configs.load(file, [word for word in words if word.startswith("--config.")])
        configs.validate(config, 8)


@pytest.mark.slow
def test_evaluations_of_the_first_run_are_accepted(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(jax, "devices", lambda *a, real=jax.devices: real(*a)[:1])
    first, *_ = COMMANDS
    evaluations = [command for command in COMMANDS if "--mode=eval" in command]
    assert len(evaluations) == 2
    for command in (first, *evaluations):
        words = shlex.split(command)[3:]
        words = [re.sub(r"^(--config=[^:]*?\.py)$", r"\1:smoke", word) for word in words]
        words = [re.sub(r"^--workdir=.*", f"--workdir={tmp_path}", word) for word in words]
        assert main.main(["main", *words]) == 0


def table_row(name):
    model = branchnets.create_model(name)
    shape = branchnets.default_image_shape(name)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, *shape))))
    count = sum(leaf.size for leaf in jax.tree.leaves(params["params"]))
    size = "×".join(map(str, shape))
    return f"| `{name}` | {size} | {count:,} |"


def test_the_table_of_models_is_complete_and_exact():
    table = README.split("<!-- models:begin -->\n")[1].split("<!-- models:end -->")[0]
    assert table.splitlines() == [table_row(name) for name in branchnets.list_models()]

"""Which cells a sweep has."""

import pytest

from branchnets.errors import ConfigError
from branchnets.sweeps import grid
from branchnets.sweeps.fields import Source

DIGITS = "coded_digits.py"


def test_the_cells_are_the_product(make_grid):
    found = make_grid(DIGITS, "mu:1,2", "p_drop:0,.1", "seed:0,1")
    assert [cell.name for cell in found.cells] == [
        f"mu={mu},p_drop={p},seed={seed}" for seed in (0, 1) for mu in (1, 2) for p in ("0", "0.1")
    ]
    last = found.cells[-1]
    assert (last.config.coded.mu, last.config.model.drop_rate, last.config.seed) == (2.0, 0.1, 1)
    assert last.arguments[1:] == (
        "--config.coded.mu=2", "--config.model.drop_rate=.1", "--config.seed=1",
    )  # fmt: skip
    assert last.point == {"mu": 2.0, "p_drop": 0.1}
    assert found.swept == ("mu", "p_drop")


@pytest.mark.parametrize("name", ["mu", "coded.mu"])
def test_one_field_has_one_name(make_grid, name):
    assert make_grid(DIGITS, f"{name}:1").cells[0].name == "mu=1"


def test_names_of_fields(make_grid):
    def label(text):
        return make_grid(DIGITS, text).cells[0].name

    assert label("normalize:false") == "normalize=false"
    assert label("momentum:0.5") == "momentum=0.5"  # the last part of a path
    assert label("optimizer.momentum:0.5") == "momentum=0.5"
    assert label("optimizer.name:sgd") == "optimizer.name=sgd"  # several end in .name
    assert label("epochs:3") == "epochs=3"
    assert label("train_size:none,100") == "train_size=none"  # an optional field


def test_equal_values_are_one_cell(make_grid):
    assert [cell.name for cell in make_grid(DIGITS, "mu:1,1.0,2").cells] == ["mu=1", "mu=2"]


def test_without_values_the_ablations_of_the_family_around_the_config(make_grid):
    found = make_grid(DIGITS, seeds=2)
    names = [cell.name for cell in found.cells]
    first = [
        "base,seed=0", "mu=1,seed=0", "mu=2,seed=0", "mu=4,seed=0", "mu=8,seed=0",
        "p_drop=0,seed=0",
        "p_drop=0.05,seed=0", "p_drop=0.2,seed=0", "exponent=2,seed=0", "exponent=1,seed=0",
        "aggregate=concat,seed=0", "normalize=false,seed=0", "block_gradients=true,seed=0",
    ]  # fmt: skip
    assert names == [*first, *(name.replace("seed=0", "seed=1") for name in first)]
    assert found.cells[1].values == {
        "mu": 1.0, "p_drop": 0.1, "exponent": 4.0, "aggregate": "sum", "normalize": True,
        "block_gradients": False, "seed": 0,
    }  # fmt: skip


def test_the_ablations_lie_around_the_overridden_config(make_grid):
    found = make_grid(DIGITS, overrides=["--config.coded.mu=2", "--config.epochs=3"])
    assert [c.name for c in found.cells[:5]] == ["base", "mu=1", "mu=4", "mu=6", "mu=8"]
    assert all(cell.config.epochs == 3 for cell in found.cells)
    assert {cell.config.coded.mu for cell in found.cells[5:]} == {2.0}


def test_shards_part_the_grid(make_grid):
    found = make_grid(DIGITS, seeds=2)
    shards = [found.shard(index, 4) for index in range(4)]
    assert sorted(c.name for s in shards for c in s) == sorted(c.name for c in found.cells)
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_arguments_of_the_config_file(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(
        "from branchnets.engine import config as configs\n"
        "def get_config(arg=None):\n"
        "    args = configs.parse_arg(arg, width=1, variant='a')\n"
        "    config = configs.base('plain')\n"
        "    config.model.name = 'resnext_digits'\n"
        "    config.data.name = 'digits'\n"
        "    config.data.image_size = 16\n"
        "    config.epochs = args.width\n"
        "    return config\n"
    )
    found = grid.make(Source(f"{file}:variant=b"), ["width:2,3"])
    assert [cell.config.epochs for cell in found.cells] == [2, 3]
    assert [cell.values for cell in found.cells] == [{"width": 2}, {"width": 3}]
    assert found.cells[0].arguments == (f"--config={file}:variant=b,width=2",)
    with pytest.raises(ConfigError, match="Did you mean 'variant'"):
        grid.make(Source(str(file)), ["varient:c"])
    with pytest.raises(ConfigError, match="given twice"):
        grid.make(Source(f"{file}:variant=b"), ["variant:c"])
    with pytest.raises(ConfigError, match="no sweep of its own"):
        grid.make(Source(str(file)))


def test_scheme_files_of_one_ratio_in_different_cells(make_grid, tmp_path):
    words = [f"{7 << shift:010b}" for shift in range(8)] + ["1100000001", "1000000011"]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "s.txt").write_text("\n".join(words if name == "a" else words[::-1]))
    texts = [f'("{tmp_path / name / "s.txt"}",)' for name in ("a", "b")]
    found = make_grid(DIGITS, f"schemes:{','.join(texts)}")
    one, other = found.cells
    assert one.name != other.name and one.name.startswith("schemes=s.txt-")
    assert one.config.coded.schemes == (str(tmp_path / "a" / "s.txt"),)
    with pytest.raises(ConfigError, match="schemes=.*nor is it a file"):
        make_grid(DIGITS, 'schemes:("missing.txt",)')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("m:1", "unknown field 'm'. Did you mean 'mu'"),
        ("coded.nu:1", "Did you mean 'coded.mu'"),
        ("name:a", "is it data.name or"),
        ("mu", "give values after a colon"),
        ("mu:", "give values after a colon"),
        ("mu:1,x", "mu=x: .*could not convert"),
        ("p_drop:0,1", r"p_drop=1: model.drop_rate is 1.0; it must be in \[0, 1\)"),
        ("mu:1,,2", "empty value"),
        ("batch_size:64,65", "batch_size=65: .*bn_group_size"),
        ("model.name:resnext_digits", "belongs to family 'plain'"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_does(make_grid, text, message):
    with pytest.raises(ConfigError, match=message):
        make_grid(DIGITS, text)


def test_contradictions_are_refused(make_grid):
    with pytest.raises(ConfigError, match="given twice"):
        make_grid(DIGITS, "mu:1", "coded.mu:2")
    with pytest.raises(ConfigError, match="fixed by --config.coded.mu=3"):
        make_grid(DIGITS, "mu:1,2", overrides=["--config.coded.mu=3"])
    with pytest.raises(ConfigError, match="one of the two"):
        make_grid(DIGITS, "seed:1,2", seeds=2)
    with pytest.raises(ConfigError, match="at least 1"):
        make_grid(DIGITS, seeds=0)


def test_the_configs_own_point_need_not_be_able_to_run(make_grid, tmp_path):
    words = "\n".join("0" * k + "1" + "0" * (11 - k) for k in range(10))
    (tmp_path / "mine.txt").write_text(words)
    fixed = ("--config.model.branches=12", "--config.model.active=((12,),(1,1),(1,1))")
    found = make_grid(DIGITS, f'schemes:("{tmp_path}/mine.txt",)', overrides=fixed)
    assert len(found.cells) == 1 and found.swept == ("schemes",)

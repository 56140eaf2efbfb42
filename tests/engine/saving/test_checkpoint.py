"""Checkpoints: kept, damaged, mistaken for one another, moved to other devices."""

from __future__ import annotations

import functools
import logging
import shutil
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from branchnets.engine.saving import disk
from branchnets.engine.saving.checkpoint import Checkpoints
from branchnets.errors import CheckpointError


@flax.struct.dataclass
class State:
    """The kinds of nodes and leaves that a training state has."""

    step: Any
    params: Any
    opt_state: Any
    extra: Any


def make_state(seed=0, width=5):
    rng = np.random.default_rng(seed)
    params = {
        "stem": {"kernel": jnp.asarray(rng.normal(size=(3, width)), jnp.float32)},
        "large": jnp.asarray(rng.normal(size=(64, 64)), jnp.float32),  # in a file of its own
        "half": jnp.asarray(rng.normal(size=7), jnp.bfloat16),
    }
    optimizer = optax.chain(optax.clip(1.0), optax.sgd(0.1, momentum=0.9))
    return State(
        step=jnp.int32(seed),
        params=params,
        opt_state=optimizer.init(params),
        extra=(np.uint32([seed, 2**32 - 1]), {}, None, jnp.zeros((0, 4)), jnp.float32(np.nan)),
    )


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype and x.shape == y.shape
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.fixture
def messages():
    return []


@pytest.fixture
def opened(tmp_path, messages):
    """Open the checkpoints of one directory, as often as asked; close them at the end."""
    made = []

    def open_again(**kwargs):
        kwargs.setdefault("best_metric", "accuracy")
        made.append(Checkpoints(tmp_path / "checkpoints", report=messages.append, **kwargs))
        return made[-1]

    yield open_again
    for checkpoints in made:
        checkpoints.close()


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    """A directory with the whole steps 1 (the best) and 2."""
    directory = tmp_path_factory.mktemp("two") / "checkpoints"
    with Checkpoints(directory, best_metric="accuracy") as checkpoints:
        checkpoints.save(1, make_state(1), {"accuracy": 0.9})
        checkpoints.save(2, make_state(2), {"accuracy": 0.1})
    return directory


# Whole checkpoints


def test_nothing_saved_is_no_error(opened, tmp_path):
    checkpoints = opened()
    assert checkpoints.restore(make_state()) is None
    assert (checkpoints.latest_step(), checkpoints.best_step()) == (None, None)
    assert not (tmp_path / "checkpoints").exists()  # looking leaves nothing behind


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_state_comes_back_bit_for_bit(opened, asynchronous):
    checkpoints = opened(asynchronous=asynchronous)
    state = make_state(3)
    assert checkpoints.save(3, state, {"accuracy": np.float32(0.5), "by_class": np.ones(3)})
    abstract = jax.eval_shape(lambda: state)
    for reader in (checkpoints, opened(), opened(read_only=True)):
        for template in (state, abstract):
            restored, step = reader.restore(template)
            assert step == 3
            assert_same(restored, state)
    assert checkpoints.metrics(3) == {"accuracy": 0.5}


def test_a_step_is_saved_once(opened):
    checkpoints = opened()
    assert checkpoints.save(1, make_state(1))
    assert not checkpoints.save(1, make_state(2))
    assert_same(checkpoints.restore(make_state())[0], make_state(1))
    assert not opened().save(1, make_state(2))


def test_latest_and_best_are_kept(opened):
    checkpoints = opened(keep_latest=2, keep_best=1)
    kept = []
    for step, accuracy in enumerate([0.5, None, 0.9, 0.8, None, 0.9, None, None], start=1):
        checkpoints.save(
            step, make_state(step), None if accuracy is None else {"accuracy": accuracy}
        )
        kept.append((checkpoints.all_steps(), checkpoints.best_step()))
    assert kept == [
        ([1], 1), ([1, 2], 1), ([2, 3], 3), ([3, 4], 3), ([3, 4, 5], 3), ([5, 6], 6),
        ([6, 7], 6), ([6, 7, 8], 6),
    ]  # fmt: skip
    assert checkpoints.latest_step() == 8
    assert_same(checkpoints.restore(make_state(), step=6)[0], make_state(6))


def test_the_best_outlives_a_restart(opened):
    first = opened()
    first.save(1, make_state(1), {"accuracy": 0.9})
    first.save(2, make_state(2), {"accuracy": 0.3})
    first.close()
    second = opened()
    second.save(3, make_state(3))
    second.save(4, make_state(4), {"accuracy": 0.5})
    assert (second.all_steps(), second.best_step()) == ([1, 4], 1)


def test_the_smallest_may_be_best_and_a_bad_metric_is_the_worst(opened):
    checkpoints = opened(best_metric="loss", mode="min", keep_latest=1, keep_best=2)
    for step, metrics in enumerate(
        [{"loss": 0.5}, {"loss": float("nan")}, {"loss": 0.2}, {"accuracy": 1.0}, {"loss": 0.9}], 1
    ):
        checkpoints.save(step, make_state(step), metrics)
    assert (checkpoints.all_steps(), checkpoints.best_step()) == ([1, 3, 5], 3)


def test_without_a_metric_the_newest_is_the_best(opened):
    checkpoints = opened(best_metric=None, keep_latest=2)
    for step in (1, 2, 3):
        checkpoints.save(step, make_state(step))
    assert (checkpoints.all_steps(), checkpoints.best_step()) == ([2, 3], 3)


def test_arrays_may_be_donated_while_they_are_being_written(opened):
    @functools.partial(jax.jit, donate_argnums=0)
    def step(state):
        return jax.tree.map(lambda x: x + 1, state)

    checkpoints = opened()
    state = step({"a": jnp.zeros((1500, 1500)), "b": jnp.zeros(3)})
    checkpoints.save(1, state)
    for _ in range(5):
        state = step(state)
    jax.block_until_ready(state)
    restored, _ = checkpoints.restore(jax.eval_shape(lambda: state))
    assert all(np.all(np.asarray(x) == 1) for x in jax.tree.leaves(restored))


@pytest.mark.parametrize("devices", [1, 2])
def test_a_checkpoint_of_eight_devices_restores_on_fewer(opened, devices):
    def placed(state, count):
        mesh = Mesh(np.array(jax.devices()[:count]), ("data",))
        return jax.tree.map(
            lambda x: jax.device_put(
                x,
                NamedSharding(
                    mesh, PartitionSpec("data") if x.shape == (64, 64) else PartitionSpec()
                ),
            ),
            state,
        )

    assert jax.device_count() == 8
    state = make_state(4)
    checkpoints = opened()
    checkpoints.save(4, placed(state, 8))
    checkpoints.wait()
    template = placed(make_state(0), devices)
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), template
    )
    restored, _ = opened().restore(abstract)
    assert_same(restored, state)
    for x, y in zip(jax.tree.leaves(restored), jax.tree.leaves(template), strict=True):
        assert x.sharding == y.sharding


def test_without_a_sharding_a_leaf_goes_to_the_first_device(opened):
    checkpoints = opened()
    checkpoints.save(1, {"a": jnp.ones(3)})
    restored, _ = checkpoints.restore({"a": jax.ShapeDtypeStruct((3,), jnp.float32)})
    assert restored["a"].devices() == {jax.devices()[0]}


def test_a_part_of_a_state_can_be_read(opened):
    checkpoints = opened()
    checkpoints.save(1, make_state(1))
    template = {"params": {"stem": {"kernel": jnp.zeros((3, 5))}}}
    restored, _ = checkpoints.restore(template, partial=True)
    assert_same(restored["params"]["stem"], make_state(1).params["stem"])
    with pytest.raises(CheckpointError, match="params/stom: not in the checkpoint"):
        checkpoints.restore({"params": {"stom": jnp.zeros(1)}}, partial=True)


def test_orbax_keeps_the_terminal_clean(opened, capfd, caplog):
    with caplog.at_level(logging.WARNING):
        checkpoints = opened()
        checkpoints.save(1, make_state(1), {"accuracy": 0.1})
        checkpoints.save(2, make_state(2))
        opened().restore(make_state())
        checkpoints.close()
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert not caplog.records


# Damage

DAMAGES = {
    "missing": lambda data: None,
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "one byte short": lambda data: data[:-1],
    "one byte long": lambda data: data + b"\n",
    "zeros": lambda data: bytes(len(data)),
    "one bit": lambda data: (
        data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 16]) + data[len(data) // 2 + 1 :]
    ),
}


def damage(file, kind):
    data = DAMAGES[kind](file.read_bytes())
    file.unlink() if data is None else file.write_bytes(data)


def state_files(step):
    """The files without which a step is not whole."""
    files = [p.relative_to(step) for p in sorted(step.rglob("*")) if p.is_file()]
    return [f for f in files if str(f) not in ("_CHECKPOINT_METADATA", "commit_success.txt")]


@pytest.mark.parametrize("kind", DAMAGES)
def test_any_damage_to_any_file_of_the_newest_step_is_noticed(
    two_steps, tmp_path, kind, record_property
):
    files = state_files(two_steps / "2")
    assert len(files) >= 9
    for number, file in enumerate(files):
        directory = tmp_path / str(number)
        shutil.copytree(two_steps, directory)
        damage(directory / "2" / file, kind)
        before = sorted(p.name for p in (directory / "2").rglob("*"))
        messages = []
        state, step = Checkpoints(directory, report=messages.append).restore(make_state())
        assert step == 1, file
        assert_same(state, make_state(1))
        assert {p.name for p in directory.iterdir()} == {"1", "damaged-2"}
        assert sorted(p.name for p in (directory / "damaged-2").rglob("*")) == before
        (message,) = messages
        assert str(directory / "damaged-2") in message
        # A list of files that is itself damaged may put the blame on another one.
        assert file.name in message or file.name == "files.json"
    record_property("tried", len(files))


def test_remarks_of_orbax_may_be_lost_without_harm(two_steps, tmp_path):
    for name in ("_CHECKPOINT_METADATA", "commit_success.txt"):
        directory = tmp_path / name
        shutil.copytree(two_steps, directory)
        (directory / "2" / name).unlink(missing_ok=True)  # not every orbax writes both
        assert_same(Checkpoints(directory).restore(make_state())[0], make_state(2))


def test_an_emptied_step_is_set_aside(opened, messages, two_steps, tmp_path):
    directory = tmp_path / "checkpoints"
    shutil.copytree(two_steps, directory)
    for child in list((directory / "2").iterdir()):
        shutil.rmtree(child) if child.is_dir() else child.unlink()
    assert opened().restore(make_state())[1] == 1
    assert "files.json is missing" in messages[0]


def test_training_goes_on_after_damage_and_nothing_is_overwritten(
    opened, messages, two_steps, tmp_path
):
    directory = tmp_path / "checkpoints"
    shutil.copytree(two_steps, directory)
    for round_ in (1, 2):
        damage(directory / "2" / "files.json", "half")
        checkpoints = opened()
        assert checkpoints.restore(make_state())[1] == 1
        checkpoints.save(2, make_state(20 + round_))
        checkpoints.close()
    assert_same(opened().restore(make_state())[0], make_state(22))
    assert {p.name for p in directory.iterdir()} == {"1", "2", "damaged-2", "damaged-2-2"}


def test_an_older_damaged_step_is_noticed_before_saving(opened, messages, two_steps, tmp_path):
    directory = tmp_path / "checkpoints"
    shutil.copytree(two_steps, directory)
    damage(directory / "1" / "metrics" / "metrics", "half")
    checkpoints = opened()
    assert checkpoints.restore(make_state())[1] == 2
    checkpoints.save(3, make_state(3))
    checkpoints.close()  # 2 is the best one now
    assert {p.name for p in directory.iterdir()} == {"2", "3", "damaged-1"}


def test_when_no_step_is_whole_nothing_starts_over_silently(opened, two_steps, tmp_path):
    directory = tmp_path / "checkpoints"
    shutil.copytree(two_steps, directory)
    for step in "12":
        damage(directory / step / "default" / "manifest.ocdbt", "missing")
    for _ in range(2):  # now, and when it is started again
        with pytest.raises(CheckpointError, match="damaged-1, damaged-2.*To start over"):
            opened().restore(make_state())
    assert {p.name for p in directory.iterdir()} == {"damaged-1", "damaged-2"}


def test_reading_only_passes_a_damaged_step_over(opened, messages, two_steps, tmp_path):
    directory = tmp_path / "checkpoints"
    shutil.copytree(two_steps, directory)
    damage(directory / "2" / "default" / "_METADATA", "half")
    reader = opened(read_only=True)
    assert reader.restore(make_state())[1] == 1
    assert "passed over" in messages[0]
    assert {p.name for p in directory.iterdir()} == {"1", "2"}
    with pytest.raises(CheckpointError, match="reading only"):
        reader.save(3, make_state())
    damage(directory / "1" / "default" / "_METADATA", "half")
    with pytest.raises(CheckpointError, match="no checkpoint in .* is whole.*1, 2"):
        opened(read_only=True).restore(make_state())
    assert {p.name for p in directory.iterdir()} == {"1", "2"}


def test_a_given_step_has_no_substitute(opened, two_steps, tmp_path):
    directory = tmp_path / "checkpoints"
    shutil.copytree(two_steps, directory)
    damage(directory / "2" / "default" / "_METADATA", "one bit")
    with pytest.raises(CheckpointError, match="2 is damaged: default/_METADATA has other"):
        opened().restore(make_state(), step=2)
    with pytest.raises(CheckpointError, match="no checkpoint of step 7 .*there are: 1, 2"):
        opened().restore(make_state(), step=7)
    assert {p.name for p in directory.iterdir()} == {"1", "2"}


def test_an_interrupted_save_leaves_the_older_steps(opened, messages, tmp_path, monkeypatch):
    checkpoints = opened()
    checkpoints.save(1, make_state(1))
    checkpoints.close()

    def fail():
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "_list_files", lambda self: fail())
        broken = opened()
        broken.save(2, make_state(2))
        with pytest.raises(CheckpointError, match="step 2 could not be written.*No space left"):
            broken.wait()
    directory = tmp_path / "checkpoints"
    leftover = [p.name for p in directory.iterdir() if p.name != "1"]
    assert leftover and "tmp" in leftover[0]
    again = opened()
    assert again.all_steps() == [1]
    assert again.restore(make_state())[1] == 1
    again.save(2, make_state(2))
    assert (again.all_steps(), messages) == ([1, 2][-1:], [])
    assert {p.name for p in directory.iterdir()} == {"2"}  # the leftover is gone too


def test_what_there_is_to_go_on_from_on_a_full_disk(opened, monkeypatch):
    checkpoints = opened()
    with monkeypatch.context() as patch:
        patch.setattr(disk, "free", lambda directory: 16_000)
        with pytest.raises(CheckpointError, match="0.016 MB are free .* no older one.*anew"):
            checkpoints.save(1, make_state(1))
    checkpoints.save(1, make_state(1))
    monkeypatch.setattr(disk, "free", lambda directory: 16_000)
    with pytest.raises(CheckpointError, match="Older ones are whole"):
        checkpoints.save(2, make_state(2))
    assert checkpoints.all_steps() == [1]


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    checkpoints = Checkpoints(tmp_path / "file" / "checkpoints")
    with pytest.raises(CheckpointError, match="checkpoints cannot be kept in"):
        checkpoints.save(1, make_state())


# Another model


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda s: s.replace(params={**s.params, "new": jnp.zeros(2)}),
         "params/new: not in the checkpoint"),
        (lambda s: s.replace(params={k: v for k, v in s.params.items() if k != "half"}),
         "params/half: only in the checkpoint"),
        (lambda s: make_state(width=6),
         r"params/stem/kernel: shape \(3, 5\) in the checkpoint, \(3, 6\) wanted"),
        (lambda s: s.replace(step=jnp.float32(0)), "step: int32 in the checkpoint, float32 wanted"),
        (lambda s: s.replace(opt_state=optax.adam(1.0).init(s.params)), "opt_state/.*and .* more"),
    ],
    ids=["added", "removed", "shape", "dtype", "optimizer"],
)  # fmt: skip
def test_another_state_is_named_and_touches_nothing(
    opened, messages, two_steps, tmp_path, change, message
):
    directory = tmp_path / "checkpoints"
    shutil.copytree(two_steps, directory)

    def contents():
        return {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()}

    before = contents()
    with pytest.raises(CheckpointError, match=f"(?s)holds another model.*{message}"):
        opened().restore(change(make_state()))
    assert contents() == before and messages == []

"""A step whose state is exchanged for another, and what a crash in the middle of it leaves."""

from __future__ import annotations

import pathlib
import shutil

import jax.numpy as jnp
import pytest

from branchnets.engine.saving.checkpoint import Checkpoints


def state(value):
    return {"params": {"kernel": jnp.full((2, 3), value)}}


def value(checkpoints):
    restored, step = checkpoints.restore(state(0.0))
    assert step == 4
    return float(restored["params"]["kernel"][0, 0])


class _Killed(BaseException):
    """In place of SIGKILL."""


@pytest.mark.parametrize("moment", range(4), ids=["first", "between", "second", "cleared"])
def test_an_exchange_that_is_cut_short_is_put_right(tmp_path, monkeypatch, moment):
    directory = tmp_path / "checkpoints"
    rename, delete, calls = pathlib.Path.rename, shutil.rmtree, []

    def counted(function, *arguments, **options):
        if len(calls) == moment:
            raise _Killed
        calls.append(function)
        return function(*arguments, **options)

    with Checkpoints(directory, asynchronous=False) as checkpoints:
        checkpoints.save(4, state(1.0))
    checkpoints = Checkpoints(directory)
    exchange = checkpoints._stored.exchange
    with monkeypatch.context() as patch, pytest.raises(_Killed):

        def start(step):  # two renames, and two deletions of what they leave
            patch.setattr(pathlib.Path, "rename", lambda *a: counted(rename, *a))
            patch.setattr(shutil, "rmtree", lambda *a, **o: counted(delete, *a, **o))
            exchange(step)

        patch.setattr(checkpoints._stored, "exchange", start)
        checkpoints.replace(4, state(2.0), {"accuracy": 0.5})
    before = sorted(directory.iterdir())
    assert [p for p in before if not p.name.isdecimal()]
    with Checkpoints(directory, read_only=True) as checkpoints:
        assert checkpoints.latest_step() == 4
        assert value(checkpoints) == (1.0 if moment < 2 else 2.0)
    assert sorted(directory.iterdir()) == before
    with Checkpoints(directory) as checkpoints:  # between the renames the new one is whole
        assert value(checkpoints) == (1.0 if moment < 1 else 2.0)
        assert not checkpoints.save(4, state(3.0))
    assert [p.name for p in directory.iterdir()] == ["4"]


def test_the_old_state_comes_back_where_the_new_one_is_damaged(tmp_path):
    directory = tmp_path / "checkpoints"
    for folder, number in ((directory, 1.0), (directory / "new-4", 2.0)):
        with Checkpoints(folder, asynchronous=False) as checkpoints:
            checkpoints.save(4, state(number))
    (directory / "4").rename(directory / "replaced-4")
    (directory / "new-4" / "4" / "default" / "_METADATA").write_text("")
    with Checkpoints(directory) as checkpoints:
        assert value(checkpoints) == 1.0
    assert [p.name for p in directory.iterdir()] == ["4"]

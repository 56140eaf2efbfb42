"""What can be done with a run that is at its end, and what is refused."""

import contextlib
import csv
import io
import json
import re
import shutil

import jax
import numpy as np
import pytest
from run_states import assert_same_bits, final_state

from branchnets import confusion, main
from branchnets import memory as memories
from branchnets.engine import train as training
from branchnets.engine.evaluate import Evaluator
from branchnets.engine.records.logging import read_metrics
from branchnets.engine.records.rundir import RunDir
from branchnets.engine.runs import load_run
from branchnets.engine.saving import disk
from branchnets.engine.saving.checkpoint import Checkpoints
from branchnets.errors import CheckpointError, ConfigError, RunDirError

ONE = jax.devices()[:1]
FIELDS = {"epochs": 3, "log.every_steps": 1}  # twelve steps


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """A run of three epochs of four steps that is at its end; what it keeps is the default."""
    path = tmp_path_factory.mktemp("finished") / "run"
    with contextlib.redirect_stderr(io.StringIO()) as told:
        assert training.train(tiny(**FIELDS), str(path), ONE) == 0
    (path.parent / "stderr").write_text(told.getvalue())
    return path


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of it, to be changed."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def test_a_damaged_newest_checkpoint_is_survived(tiny, finished, copied, capsys):
    newest = copied / "checkpoints" / "12"
    victim = max((f for f in newest.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:100])
    assert training.train(tiny(**FIELDS), str(copied), ONE) == 0
    message = capsys.readouterr().err
    assert "set aside as" in message and "Resuming" in message
    assert (copied / "checkpoints" / "damaged-12").is_dir()
    assert_same_bits(final_state(copied), final_state(finished))


def test_latest_and_best_are_kept(finished):
    kept = Checkpoints(finished / "checkpoints", read_only=True, best_metric="accuracy")
    assert kept.latest_step() == 12 and 2 <= len(kept.all_steps()) <= 3
    best = kept.metrics(kept.best_step())["accuracy"]
    evaluated = [
        line["accuracy"]
        for line in read_metrics(finished / "metrics.jsonl")
        if line["split"] == "test"
    ]
    assert best == max(evaluated)


def test_another_config_in_the_same_directory_is_refused_and_nothing_changes(tiny, finished):
    before = {f: f.stat().st_mtime_ns for f in finished.rglob("*")}
    with pytest.raises(RunDirError, match=r"coded\.mu: 6\.0 in the run, 3\.0 given"):
        training.train(tiny(**FIELDS, **{"coded.mu": 3.0}), str(finished), ONE)
    assert before == {f: f.stat().st_mtime_ns for f in finished.rglob("*")}


def test_a_run_that_lacks_only_its_summary_needs_no_space(tiny, copied, monkeypatch):
    (copied / "summary.json").unlink()
    monkeypatch.setattr(disk, "free", lambda directory: 0)
    assert training.train(tiny(**FIELDS), str(copied), ONE) == 0
    assert (copied / "summary.json").exists()
    with pytest.raises(CheckpointError, match="0 MB are free on the disk.*no older one"):
        training.train(tiny(), str(copied.with_name("another")), ONE)


def test_evaluation_reads_a_run_and_writes_nothing(finished, capsys):
    before = {f: f.stat().st_mtime_ns for f in finished.rglob("*")}
    summary = json.loads((finished / "summary.json").read_text())
    capsys.readouterr()
    assert main.main(["main", "--mode=eval", f"--workdir={finished}"]) == 0
    printed, _, words = capsys.readouterr().out.partition("\n\n")
    table = dict(line.split()[:2] for line in printed.splitlines())
    assert float(table["accuracy"]) == pytest.approx(summary["test_accuracy"], abs=1e-3)
    with (finished / "confusion.csv").open() as file:
        rows = list(csv.DictReader(file))
    counts = np.array([[int(row[name]) for name in list(row)[1:]] for row in rows])
    assert counts.shape == (10, 10) and counts.sum() == summary["test_examples"]
    assert np.trace(counts) == round(summary["test_accuracy"] * counts.sum())
    with (finished / "per_class.csv").open() as file:
        classes = list(csv.DictReader(file))
    assert [int(row["images"]) for row in classes] == counts.sum(1).tolist()
    assert words.strip() == confusion.words(counts, [row["class"] for row in classes])
    assert "confusion" not in read_metrics(finished / "metrics.jsonl")[-1]
    assert summary["averaged_weights"] is False
    averaged = "--config.ema.decay=0.9"
    assert main.main(["main", "--mode=eval", f"--workdir={finished}", averaged]) == 2
    assert "the run kept no running averages" in capsys.readouterr().err
    assert before == {f: f.stat().st_mtime_ns for f in finished.rglob("*")}


def test_evaluation_on_another_data_set(name_classes, copied, capsys):
    name_classes(copied, list("0123456789"))  # as if the made-up images were digits
    command = ["main", "--mode=eval", f"--workdir={copied}"]
    digits = [*command, "--config.data.name=digits"]
    assert main.main(digits) == 0
    assert "digits/test at step 12" in capsys.readouterr().out
    assert main.main([*digits, "--config.eval.split=validation", "--checkpoint=best"]) == 0
    printed = capsys.readouterr().out.partition("\n\n")[0]
    found = dict(line.split()[:2] for line in printed.splitlines())
    # Normalised as the run's own images were, not by the statistics of the other set.
    config = RunDir(copied, write=False).config()
    config.data.name, config.eval.split = "digits", "validation"
    run = load_run(copied, config=config, devices=ONE)
    setup, state = run.setup, run.state
    images = (setup.dataset.split("validation").images / 255 - 0.5) / 0.25
    logits = setup.family.model.apply(state.variables, images.astype(np.float32)).logits
    right = np.argmax(logits, 1) == setup.dataset.split("validation").labels
    assert float(found["accuracy"]) == pytest.approx(float(right.mean()), abs=1e-3)
    assert main.main([*digits, "--checkpoint=999"]) == 2
    assert "no checkpoint of step 999" in capsys.readouterr().err
    assert main.main([*command, "--config.data.name=cifar100"]) == 2
    assert "10 classes of fake; cifar100 has 100" in capsys.readouterr().err
    assert main.main([*command, "--config.data.name=cifar10"]) == 2
    assert "shape (8, 8, 1); those of cifar10 are (8, 8, 3)" in capsys.readouterr().err


def test_exact_evaluation_does_not_depend_on_the_batch(tiny, finished):
    config = tiny(**FIELDS)
    found = []
    for batch in (16, 5, 64):
        config.eval.batch_size = batch
        run = load_run(finished, config=config, devices=ONE)
        setup, state = run.setup, run.state
        evaluator = Evaluator(setup.family, 0)
        found.append(evaluator(state.variables, state.extra, setup.evaluation_input("test")))
    for other in found[1:]:
        assert other["accuracy"] == found[0]["accuracy"]
        assert np.array_equal(other["confusion"], found[0]["confusion"])
        assert other["cross_entropy"] == pytest.approx(found[0]["cross_entropy"], rel=1e-5)


def test_what_a_run_needs_and_how_long_it_takes_are_each_told_once(finished):
    error = (finished.parent / "stderr").read_text()
    rows = dict(re.findall(r"^(.+?)(?:, of .* free)?  +([\d.]+ .?B)$", error, re.M))
    assert rows["data set"] == "4.35 kB" and float(rows["activations and workspace"].split()[0])
    assert set(rows) >= {"optimiser state", "parameters and statistics", "on the host together"}
    assert error.count("memory needed on each device") == 1
    assert error.count("An epoch takes about") == 1 and "whole run (3 of them)" in error


def test_a_run_that_no_longer_fits_stays(tiny, finished, monkeypatch):
    monkeypatch.setattr(memories, "host_free", lambda: 50_000)
    before = (finished / "config.json").read_text()
    with pytest.raises(ConfigError, match="a smaller network"):
        training.train(tiny(**FIELDS), str(finished), ONE)
    assert (finished / "config.json").read_text() == before


def test_a_data_set_whose_classes_have_other_names_is_refused(name_classes, copied, capsys):
    command = ["main", "--mode=eval", f"--workdir={copied}"]
    assert main.main([*command, "--config.data.name=digits"]) == 2
    message = "class 0 of the run is 'class_0'; that of the data set digits is '0', so its labels"
    assert message in capsys.readouterr().err
    names = RunDir(copied, write=False).derived()["data"]["class_names"]
    for own, message in [
        ([*names[:3], "cat", *names[4:]], "class 3 of the run is 'cat'.*fake is 'class_3'"),
        ([*names, "cat"], "class 10 of the run is 'cat'.*fake is none at all"),
        (names[:9], "class 9 of the run is none at all.*fake is 'class_9'"),
    ]:
        name_classes(copied, own)
        with pytest.raises(ConfigError, match=message):  # the run's own data, changed since
            load_run(copied, devices=ONE)
    name_classes(copied, None)
    assert load_run(copied, devices=ONE).step == 12
    digits = RunDir(copied, write=False).config()
    digits.data.name = "digits"
    assert load_run(copied, config=digits, devices=ONE).dataset.name == "digits"

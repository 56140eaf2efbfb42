"""Fine-tuning through the command line: digits 0 to 9, then six of them under other names."""

import csv
import json
import pathlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from branchnets import data, main

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "resnext_digits.py"
NAMES = "pqrstu"  # of digits 4 to 9
SMALL = (
    "--config.model.depths=(1,1)",
    "--config.model.channels=32",
    "--config.model.stem_channels=16",
    "--config.data.image_size=8",
    "--config.bn_group_size=none",
    "--config.eval.every_epochs=0",
    "--config.checkpoint.every_epochs=0",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """DIR/train/q/17.png and so on: the last six digits."""
    place = tmp_path_factory.mktemp("six")
    digits = data.load(SimpleNamespace(name="digits"))
    for split in ("train", "test"):
        for i, (image, label) in enumerate(
            zip(digits.split(split).images, digits.split(split).labels, strict=True)
        ):
            if label >= 4:
                path = place / split / NAMES[label - 4] / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image[..., 0]).save(path)
    return place


def accuracy(capsys):
    printed = capsys.readouterr().out.partition("\n\n")[0]
    return float(dict(line.split()[:2] for line in printed.splitlines())["accuracy"])


@pytest.mark.slow
def test_a_run_is_fine_tuned_to_other_classes(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BRANCHNETS_CACHE", str(tmp_path / "cache"))
    source, tuned = tmp_path / "source", tmp_path / "tuned"
    command = ["main", f"--config={CONFIG}", *SMALL]
    assert main.main([*command, f"--workdir={source}", "--config.epochs=8"]) == 0
    command += [
        "--config.data.name=folder", f"--config.data.data_dir={folder}",
        "--config.data.channels=1", "--config.data.train_size=64", "--config.batch_size=16",
        "--config.epochs=20", "--config.optimizer.learning_rate=0.02",
        "--config.schedule.warmup_epochs=0.0", f"--config.init.source={source}",
        "--config.bn_reestimation.batches=3", f"--workdir={tuned}",
    ]  # fmt: skip
    capsys.readouterr()
    assert main.main(command) == 0
    assert "Starting from" in capsys.readouterr().err
    summary = json.loads((tuned / "summary.json").read_text())
    assert summary["init"]["fresh"] == ["params/head/linear/kernel"]
    assert summary["init"]["source"] == str(source)
    assert summary["test_accuracy"] > 0.5  # chance: 0.17, from scratch about 0.3

    evaluate = ["main", "--mode=eval", f"--workdir={tuned}"]
    capsys.readouterr()
    assert main.main(evaluate) == 0
    assert accuracy(capsys) == pytest.approx(summary["test_accuracy"], abs=1e-3)
    # The same batches give the statistics that the run ended with.
    assert main.main([*evaluate, "--config.bn_reestimation.batches=3"]) == 0
    assert accuracy(capsys) == pytest.approx(summary["test_accuracy"], abs=1e-3)
    with (tuned / "per_class.csv").open() as file:
        found = {row["class"]: float(row["accuracy"]) for row in csv.DictReader(file)}
    assert list(found) == list(NAMES)
    assert np.mean(list(found.values())) > 0.45

    source.rename(tmp_path / "elsewhere")  # what has begun needs its source no more
    assert main.main(command) == 0

import json

import numpy as np
import pytest

from benchmarks import input as benchmark
from benchmarks import made_images
from branchnets.data.stored.records import FileRecords
from branchnets.data.stored.tfds import TfdsRecords


def test_folder_and_records_hold_the_same_files(tmp_path, monkeypatch):
    monkeypatch.setenv("BRANCHNETS_CACHE", str(tmp_path / "cache"))
    files = made_images.jpegs(3)
    assert 50_000 < np.mean([len(data) for data in files]) < 200_000
    names = made_images.write_folder(tmp_path, files)
    folder = FileRecords(tmp_path, names, np.arange(3))
    records = TfdsRecords(made_images.write_tfds(tmp_path, files), "train")
    assert [folder[i].data for i in range(3)] == [records[i].data for i in range(3)] == files
    assert [records[i].label for i in range(3)] == [0, 1, 2]


def test_every_path_is_measured(monkeypatch, capsys):
    pytest.importorskip("cv2")
    monkeypatch.setattr(benchmark, "through_a_worker", lambda rows, images: 0.01)
    assert benchmark.main(["--images=16", "--rounds=1", "--skip-step", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["streamed"]) == 6
    assert all(each["images_per_s"] > 0 for each in document["streamed"].values())
    assert document["cores"]["v2-8, the paper"] == 5  # 447 at 100 a second

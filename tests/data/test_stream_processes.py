"""A streamed batch that two processes share."""

from __future__ import annotations

import numpy as np
import pytest
from jpeg_tree import write_tree

MAKE = """
import pathlib, sys
import jax, numpy as np
from branchnets import data
from branchnets.engine import config as configs
from branchnets.engine import mesh as meshes

def batches(root, steps):
    fields = {
        "batch_size": 8, "data.name": "folder", "data.data_dir": str(root), "data.stream": True,
        "data.image_size": 16, "data.channels": 3, "data.workers": 0,
        "augment.crop_area": (0.2, 1.0)}
    config = configs.apply_overrides(configs.base(), fields)
    dataset, mesh = data.load(config.data), meshes.make_mesh()
    train = data.train_input(dataset, config, mesh)
    for step in steps:
        arrays = train.arrays(step)
        yield f"train{step}", arrays["images"], arrays["labels"]
    train.close()
    for i, batch in enumerate(data.eval_input(dataset.split("test"), dataset, config, 8, mesh)):
        yield f"eval{i}", batch["image"], batch["label"]
"""
WORKER = f"""{MAKE}
process, port, root, out = int(sys.argv[1]), *sys.argv[2:]
jax.distributed.initialize(f"127.0.0.1:{{port}}", num_processes=2, process_id=process)
found = {{}}
for name, images, labels in batches(root, (0, 4)):
    assert images.shape == (8, 16, 16, 3) and len(images.addressable_shards) == 1
    (image,), (label,) = images.addressable_shards, labels.addressable_shards
    assert image.index[0] == label.index[0] == slice(4 * process, 4 * process + 4)
    found[f"{{name}} images"], found[f"{{name}} labels"] = image.data, label.data
np.savez(f"{{out}}/{{process}}", **found)
"""


@pytest.mark.multiprocess
def test_two_processes_hold_the_batch_of_one(tmp_path, two_processes):
    for split, count, seed in (("train", 9, 0), ("test", 3, 100)):
        write_tree(tmp_path / split, ("ant", "bee", "cat"), count, seed)
    two_processes(WORKER, tmp_path, tmp_path)
    one, two = (np.load(tmp_path / f"{process}.npz") for process in range(2))
    scope: dict = {}
    exec(MAKE, scope)
    names = []
    for name, images, labels in scope["batches"](tmp_path, (0, 4)):
        names.append(name)
        for what, whole in (("images", images), ("labels", labels)):
            joined = np.concatenate([part[f"{name} {what}"] for part in (one, two)])
            np.testing.assert_allclose(joined, whole, atol=1e-5)  # of whole numbers in training
    assert names == ["train0", "train4", "eval0", "eval1"]

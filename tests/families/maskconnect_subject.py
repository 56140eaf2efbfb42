"""Small MaskConnect networks with given masks, and finished runs that nobody trained."""

import jax.numpy as jnp

from branchnets import data, families
from branchnets.engine import config as configs
from branchnets.families.study import FinishedRun, Subject

SHAPE = (8, 8, 1)
NAMES = ("stage2/block0", "stage3/block0", "stage4/block0")

#: Each branch reads one; [3] of stage3 and [1, 3] of stage2 are read by nobody that counts.
READS = {"stage3/block0": (0, 2, 2, 1), "stage4/block0": (0, 1, 1, 2)}


def make_family(**overrides):
    config = configs.base("maskconnect")
    config.model.name = "maskconnect_digits"
    config.epochs = 10
    config.maskconnect.phases = (("learn", 4.0), ("tune", 6.0))
    small = {"model.depths": (1, 1, 1), "model.branches": 4, "model.fan_in": 1, **overrides}
    spec = data.DataSpec(SHAPE, 10, tuple("abcdefghij"))
    return families.create(configs.apply_overrides(config, small), spec)


def one_hot(reads):
    return jnp.eye(4)[jnp.array(reads)]


def make_subject(family, masks=None, **fields):
    """A subject of a family with masks; by default, frozen ones that read :data:`READS`."""
    masks = {name: one_hot(reads) for name, reads in READS.items()} if masks is None else masks
    return Subject(
        variables={"masks": masks} if family.has_masks else {},
        extra={},
        image_shape=SHAPE,
        class_names=tuple("abcdefghij"),
        dataset="digits",
        examples=lambda name: None,
        **fields,
    )


def finished(accuracy, seed=0, figures=None, **overrides):
    """A run at its end; overrides are of the config's fields, with ``__`` for dots."""
    config = configs.base("maskconnect")
    config.model.name = "maskconnect29_w8_c8"
    config.data.name = "cifar100"
    config.epochs = 320
    config.seed = seed
    paths = {name.replace("__", "."): value for name, value in overrides.items()}
    config = configs.apply_overrides(config, paths)
    found = {"test_accuracy": accuracy, "parameters": 858_292, **(figures or {})}
    return FinishedRun(f"seed={seed}", configs.flatten(configs.plain(config)), found)

"""A small coded network with random weights and random images, as the analyses are given one."""

import jax
import jax.numpy as jnp
import numpy as np

from branchnets import data, families
from branchnets.data.device.resident import EvalInput
from branchnets.engine import config as configs
from branchnets.engine import mesh as meshes
from branchnets.families.study import Subject

SHAPE = (8, 8, 1)
SIZES = {"train": 60, "test": 37, "outside": 21}
ACTIVE = ((10,), (5,), (3,))


def make_family(**overrides):
    config = configs.base("coded")
    config.model.name = "coded_resnext_digits"
    spec = data.DataSpec(SHAPE, 10, tuple("abcdefghij"))
    overrides = {"model.active": ACTIVE, **overrides}
    return families.create(configs.apply_overrides(config, overrides), spec)


def make_variables(model, seed=0):
    """Random everywhere: fresh ones have zero scales, with which no branch reaches the output."""
    variables = jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, *SHAPE)))
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: x + 0.3 * np.abs(random.normal(size=x.shape)).astype(np.float32), variables
    )


def apply(model, variables, images, **masks):
    """The whole network; compiled, which is quicker than running it operation by operation."""
    return jax.jit(lambda v, x, m: model.apply(v, x, **m))(variables, images, masks)


def make_split(name):
    random = np.random.default_rng(list(SIZES).index(name))
    images = random.integers(0, 256, (SIZES[name], *SHAPE)).astype(np.uint8)
    labels = random.permutation(np.arange(SIZES[name]) % 10)
    # Each class brightens its own pixels, so that it can be told from the others.
    images[np.arange(len(labels)), labels // 4, labels % 4] = 255
    return data.Split(images, labels)


class Unread:
    """Examples some of which cannot be read, as streamed ones are given."""

    def __init__(self, examples, unread):
        self._examples, self._unread = examples, unread

    def __getattr__(self, name):
        return getattr(self._examples, name)

    def __len__(self):
        return len(self._examples)

    def __iter__(self):
        for number, batch in enumerate(self._examples):
            places = number * self.batch_size + np.arange(self.batch_size)
            kept = ~np.isin(places, self._unread)
            yield {name: x * kept.reshape(-1, *[1] * (x.ndim - 1)) for name, x in batch.items()}


def make_subject(family, variables, batch_size=16, devices=1, outside=False, **options):
    mesh = meshes.make_mesh(jax.devices()[:devices])
    splits = {name: make_split(name) for name in SIZES}
    dataset = data.Dataset("fake", family.class_names, splits, (0.5,), (0.25,))

    def examples(name):
        return EvalInput(dataset.split(name), dataset, batch_size, mesh)

    return Subject(
        variables=jax.device_put(variables, meshes.replicated(mesh)),
        extra={},
        image_shape=SHAPE,
        class_names=family.class_names,
        dataset="fake",
        examples=examples,
        outside=examples("outside") if outside else None,
        outside_name="noise" if outside else "",
        options=options,
        seed=3,
        batch_size=batch_size,
    )


def images_of(subject, split):
    """All images [n, H, W, C], normalised, and labels of a split."""
    batches = list(subject.examples(split))
    kept = [np.asarray(b["mask"]) > 0 for b in batches]
    return tuple(
        np.concatenate([np.asarray(b[key])[k] for b, k in zip(batches, kept, strict=True)])
        for key in ("image", "label")
    )

"""What a step is made of, without data, against what the trainer has with it."""

import jax
import pytest

from branchnets import data
from branchnets.engine import config as configs
from branchnets.engine import executable
from branchnets.engine.evaluate import Evaluator
from branchnets.engine.setup import outline, prepare
from branchnets.errors import DataError


def alike(shapes, arrays):
    """Whether shapes, dtypes and shardings are those of the arrays."""
    assert jax.tree.structure(shapes) == jax.tree.structure(arrays)
    for shape, array in zip(jax.tree.leaves(shapes), jax.tree.leaves(arrays), strict=True):
        assert (shape.shape, shape.dtype) == (array.shape, array.dtype)
        assert shape.sharding.is_equivalent_to(array.sharding, array.ndim)
    return True


@pytest.mark.parametrize("stream", [False, True])
def test_a_step_is_traced_from_shapes_as_from_arrays(tiny, stream):
    config = tiny(**{"data.stream": stream, "data.workers": 0})
    setup = prepare(config)
    plan = outline(config, jax.devices())
    arrays = setup.inputs.arrays(0)
    assert alike(plan.inputs.shapes(), arrays)
    assert plan.inputs.steps_per_epoch == setup.inputs.steps_per_epoch
    assert plan.resolved == setup.resolved
    split = setup.validation_split
    batch = next(iter(setup.evaluation_input(split)))
    assert alike(plan.evaluation_shapes(), batch)
    setup.inputs.close()
    if stream:
        return  # one of the two is enough to trace
    (phase,) = setup.family.phases(setup.resolved.total_steps)
    texts = [
        executable.lower(made, phase, given)[0].as_text()
        for made, given in ((plan, plan.inputs.shapes()), (setup, arrays))
    ]
    assert texts[0] == texts[1]
    state = plan.abstract_state()
    lowered = Evaluator(plan.family, 0).lower("", state.averaged, state.extra, batch)
    assert lowered.as_text()


def section(**fields):
    return configs.apply_overrides(
        configs.base("plain"), {f"data.{n}": v for n, v in fields.items()}
    ).data


def test_an_outline_of_a_published_set_needs_no_file():
    found = data.outline(section(name="imagenet2012", image_size=160))
    assert found.streamed and found.image_shape == (160, 160, 3) and found.num_classes == 1000
    assert {name: len(split) for name, split in found.splits.items()} == {
        "train": 1_281_167,
        "test": 50_000,
    }
    with pytest.raises(DataError, match="cannot be read"):
        found.splits["train"][0]
    found = data.outline(section(name="cifar10", pad_to=40, validation_size=5000, train_size=10000))
    sizes = {name: split.images.shape for name, split in found.splits.items()}
    assert sizes["train"] == (10_000, 40, 40, 3) and sizes["validation"] == (5_000, 40, 40, 3)
    found = data.outline(section(name="mini_imagenet", crop_size=64, per_pixel_mean=True))
    assert found.image_shape == (64, 64, 3) and len(found.splits["train"]) == 50_000
    assert len(found.mean) == 84
    with pytest.raises(DataError, match="train_size=60000 must lie"):
        data.outline(section(name="cifar10", train_size=60_000))

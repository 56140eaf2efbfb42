"""Models by name."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

import branchnets


def test_list_models_matches_a_pattern():
    names = branchnets.list_models("coded*")
    assert "coded_resnext29_10x11d_cifar10" in names
    assert all(name.startswith("coded") for name in names)


@pytest.mark.parametrize("name", branchnets.list_models())
def test_every_registered_model_has_logits_first(name):
    model = branchnets.create_model(name, num_classes=7, dtype="bfloat16")
    shape = (2, *branchnets.default_image_shape(name))

    def run():
        variables = model.init(jax.random.key(0), jnp.zeros(shape))
        return variables, model.apply(variables, jnp.zeros(shape))

    variables, output = jax.eval_shape(run)
    first = jax.tree.leaves(output)[0]
    assert first is output.logits
    assert (first.shape, first.dtype) == ((2, 7), jnp.float32)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_wrong_names_list_the_right_ones():
    with pytest.raises(ValueError, match="Did you mean .resnext29_10x11d"):
        branchnets.create_model("resnext29_10x11")
    with pytest.raises(ValueError, match="unknown dtype 'float8'"):
        branchnets.create_model("resnet50", dtype="float8")
    with pytest.raises(ValueError, match="no field 'head_bia'. Did you mean 'head_bias'"):
        branchnets.create_model("resnet50", head_bia=True)


def test_what_is_no_batch_of_images_is_refused():
    model = branchnets.create_model("resnext_digits")
    for wrong in (jnp.zeros((16, 16, 1)), jnp.zeros((2, 16, 16, 1), jnp.uint8)):
        with pytest.raises(ValueError, match="normalised images"):
            jax.eval_shape(model.init, jax.random.key(0), wrong)


def test_importing_needs_no_trainer():
    code = (
        "import sys, branchnets; branchnets.create_model('resnet50');"
        "bad = {'tensorflow', 'orbax', 'tensorboardX', 'ml_collections'};"
        "print(sorted(bad & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"

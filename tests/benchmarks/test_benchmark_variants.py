import pytest

from benchmarks import variants


def test_a_name_alone_is_the_registered_model():
    variant = variants.parse("maskconnect29_w8_c8")
    assert (variant.name, variant.fields) == ("maskconnect29_w8_c8", {})
    spec = variant.spec()
    assert (spec.image_shape, spec.num_classes) == ((32, 32, 3), 100)
    assert variant.spec((8, 8, 3), 7).num_classes == 7


def test_fields_reach_the_network():
    variant = variants.parse("maskconnect_digits:connectivity=random,fan_in=2,head_bias=False")
    family = variant.family()
    assert family.connectivity == "random" and family.model.mask_init == "random"
    assert family.model.fan_in == 2 and family.model.head_bias is False
    # A field of the module that the config does not list.
    grouped = variants.parse("resnext_digits:bn_group_size=16").family()
    assert grouped.model.bn_group_size == 16


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("maskconnect29", "unknown model"),
        ("maskconnect_digits:k=1", "unknown config argument 'k'"),
        ("maskconnect_digits:name=other", "unknown config argument 'name'"),
    ],
)
def test_what_does_not_exist_is_refused(word, message):
    with pytest.raises(ValueError, match=message):
        variants.parse(word)

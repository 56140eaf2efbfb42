"""What the analyses and slimming of a coded network are asked for is checked before they run."""

import pytest

import branchnets
from branchnets.errors import ConfigError
from branchnets.families.coded import CodedFamily
from branchnets.families.coded.extract import OPTIONS as SLIM_OPTIONS
from branchnets.tools.common import complete_options, merge_options


@pytest.fixture(scope="module")
def options():
    family = CodedFamily(branchnets.create_model("coded_resnext_digits"), {})
    return merge_options(o for a in family.analyses().values() for o in a.options)


@pytest.mark.parametrize(
    "given",
    [
        {"draws": 0},
        {"draws": "many"},
        {"negatives": "0"},
        {"negatives": "some"},
        {"timing_steps": -1},
        {"timing_batch": -1},
    ],
)
def test_a_value_that_cannot_be_used_is_refused(options, given):
    (name,) = given
    with pytest.raises(ConfigError, match=f"^{name} .*not {given[name]!r}"):
        complete_options(given, options)


def test_values_that_can_be_used_are_taken(options):
    given = {"draws": 1, "negatives": "all", "timing_steps": 0, "timing_batch": 0}
    assert complete_options(given, options) == given
    assert complete_options({"negatives": None}, options)["negatives"] is None


def test_slimming_checks_its_negatives_too():
    with pytest.raises(ConfigError, match="negatives is all or a whole number"):
        complete_options({"classes": "3", "negatives": "0"}, SLIM_OPTIONS)

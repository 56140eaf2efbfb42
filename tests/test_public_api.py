"""What ``import branchnets`` offers."""

import pytest

import branchnets


def test_what_works_on_runs_is_found_where_it_is_asked_for():
    from branchnets.engine.runs import load_run

    assert branchnets.load_run is load_run


def test_a_name_that_is_not_offered_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'load_rum'"):
        branchnets.load_rum  # noqa: B018

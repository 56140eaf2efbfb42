"""The small coded network with random weights that the tests of the analyses share."""

import coded_subject
import pytest


@pytest.fixture(scope="session")
def family():
    return coded_subject.make_family()


@pytest.fixture(scope="session")
def variables(family):
    return coded_subject.make_variables(family.model)

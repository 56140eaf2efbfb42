"""What the tests of data share."""

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """A cache directory of the test's own, so that no array of another one is found."""
    monkeypatch.setenv("BRANCHNETS_CACHE", str(tmp_path_factory.mktemp("cache")))

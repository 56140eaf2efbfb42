"""A network that every benchmark can afford."""

from functools import partial

import pytest

from branchnets import registry
from branchnets.families.plain.resnet import ResNet, bottleneck_stages


@pytest.fixture
def tiny(monkeypatch):
    """Registers a network of one block."""
    build = partial(ResNet, stages=bottleneck_stages((1,), 1, 4, channels=8), stem_channels=4)
    entry = registry.Entry(build, "plain", (4, 4, 1), 3)
    registry.entry("resnet50")  # loads the registered ones
    monkeypatch.setitem(registry._ENTRIES, "tiny", entry)

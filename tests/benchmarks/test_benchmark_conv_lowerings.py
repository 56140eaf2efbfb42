import json

import jax
import pytest

from benchmarks import conv_lowerings
from benchmarks.conv_lowerings import NETWORKS, Layer


def test_every_candidate_is_timed(monkeypatch, capsys):
    layers = [Layer(2, 4, 2, 4, 2), Layer(2, 4, 8, 4, features=2)]
    monkeypatch.setitem(NETWORKS, "c10", layers)
    conv_lowerings.main(["--network=c10", "--rounds=1", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert list(document["networks"]) == ["c10"]
    three, one = document["networks"]["c10"]
    assert three["layer"] == "4x2d 4x4 stride 2" and "dense" in three["median_s"]
    assert one["layer"] == "4x(8->2) 4x4" and set(one["median_s"]) == {"dot:1", "dot:2", "dot:4"}
    for row in (three, one):
        assert row["chosen"] in row["median_s"] and row["best"] in row["median_s"]
        assert row["ratio"] >= 1


@pytest.mark.parametrize(
    ("network", "pairs"),
    [
        ("w4_c8", [(64, 4), (4, 64), (128, 8), (8, 128), (256, 16), (16, 256)]),
        ("w8_c8", [(64, 8), (8, 64), (128, 16), (16, 128), (256, 32), (32, 256)]),
    ],
)
def test_layers_into_and_out_of_the_bottleneck(network, pairs):
    layers = NETWORKS[network]
    assert [(layer.width, layer.features) for layer in layers] == pairs
    for layer, (before, after) in zip(layers, pairs, strict=True):
        x, kernel, dy = jax.eval_shape(layer.operands)
        assert x.shape == (32, layer.size, layer.size, 8 * before) == layer.x_shape
        assert kernel.shape == (1, 1, before, 8 * after) == layer.kernel_shape
        assert dy.shape == (32, layer.size, layer.size, 8 * after)

import dataclasses

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from benchmarks import torch_models  # noqa: E402
from benchmarks.torch_yardstick import Form, make_step  # noqa: E402


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnext29_10x11d", 4_638_926),
        ("coded_resnext29_10x11d_cifar10", 4_638_926),
        ("resnext29_20x6d", 4_749_136),
        ("coded_resnext29_20x6d_cifar100", 4_749_136),
        ("resnext50_32x4d", 25_028_904),
        ("coded_resnext50_32x4d_imagenet", 25_027_904),
    ],
)
def test_parameter_counts(name, parameters):
    shape = torch_models.SHAPES[name]
    network = torch_models.Network(shape, shape.num_classes)
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_coded_block_follows_the_equations():
    torch.manual_seed(0)
    codes = torch_models.codewords(10, branches=4, active=2)
    assert torch.equal(codes.sum(1), torch.full((10,), 2.0))
    block = torch_models.CodedBlock(8, 12, 4, 3, 1, codes).double()
    torch.nn.init.ones_(block.expand_bn.weight)
    x, labels = torch.randn(2, 8, 5, 5).double(), torch.tensor([3, 7])
    drop = torch.tensor([[0.0, 2.0, 2.0, 0.0], [2.0, 2.0, 0.0, 2.0]]).double()
    y, loss = block.coded(x, labels, drop)

    hidden = block.hidden(x)
    kernels = block.expand.weight.reshape(4, 12, 3)
    expected, terms = torch.zeros(2, 12, 5, 5).double(), []
    for b in range(2):
        t = [
            torch.einsum("oc,chw->ohw", kernels[n], hidden[b, 3 * n : 3 * n + 3]) for n in range(4)
        ]
        total = sum(each.square().mean() for each in t) / 4
        t = [each / total.sqrt() for each in t]
        terms += [(0.5 * t[n].square().mean() - codes[labels[b], n]) ** 4 for n in range(4)]
        expected[b] = sum(drop[b, n] * t[n] for n in range(4))
    normal = torch.nn.functional.batch_norm(expected, None, None, training=True)
    shortcut = block.shortcut(x)
    torch.testing.assert_close(y, torch.relu(normal + shortcut))
    torch.testing.assert_close(loss, sum(terms) / len(terms))


def test_evaluation_computes_what_training_does_without_drops_and_running_averages():
    torch.manual_seed(0)
    block = torch_models.CodedBlock(8, 12, 4, 3, 1, torch_models.codewords(10, 4, 2)).double()
    torch.nn.init.ones_(block.expand_bn.weight)
    x, labels = torch.randn(2, 8, 5, 5).double(), torch.tensor([3, 7])
    expected, _ = block.eval().coded(x, labels, torch.ones(2, 4).double())
    torch.testing.assert_close(block(x), expected)


@pytest.fixture
def small(monkeypatch):
    shape = dataclasses.replace(
        torch_models.SHAPES["coded_resnext29_10x11d_cifar10"], depths=(1, 1, 1), width=2
    )
    monkeypatch.setitem(torch_models.SHAPES, "small", shape)
    return "small"


def test_a_step_lowers_the_loss(small):
    step = make_step(small, Form(batch=8, size=8))
    losses = [step() for _ in range(15)]
    assert losses[-1] < 0.8 * losses[0]


def test_half_precision_and_inference(small):
    losses = [make_step(small, Form(8, 8, dtype=dtype))() for dtype in ("float32", "bfloat16")]
    assert losses[0] != losses[1] and losses[1] == pytest.approx(losses[0], rel=0.02)
    logit = make_step(small, Form(8, 8, inference=True))
    assert logit() == logit() != 0

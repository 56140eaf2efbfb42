"""What the paper varies: its names of the fields, the values of its ablations, what they gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from branchnets.families.study import Panel, Reference

#: The paper's name -> path of the config field.
ALIASES: Mapping[str, str] = {
    "mu": "coded.mu",
    "p_drop": "model.drop_rate",
    "exponent": "coded.exponent",
    "aggregate": "model.aggregate",
    "normalize": "model.normalize",
    "block_gradients": "coded.block_gradients",
    "schemes": "coded.schemes",
}

#: Figs. 5 and 6, the exponent of 4.5, concatenation of 4.3.1, the normalisation of 3.1.1 left out,
#: and footnote 5's blocking of gradients.
SWEEPS: Mapping[str, tuple[Any, ...]] = {
    "mu": (1.0, 2.0, 4.0, 6.0, 8.0),
    "p_drop": (0.0, 0.05, 0.1, 0.2),
    "exponent": (4.0, 2.0, 1.0),
    "aggregate": ("sum", "concat"),
    "normalize": (True, False),
    "block_gradients": (False, True),
}

FIGURES: Mapping[str, str] = {"mu": "fig5_mu", "p_drop": "fig6_p_drop"}

PANELS = (
    Panel("Whole network", "test accuracy", ("test_accuracy",), percent=True),
    Panel("Early decoding", "test accuracy", ("early_decoding_accuracy/*",), percent=True),
    Panel("Binary classifiers", "mean over classes", ("binary/f1", "binary/average_precision")),
    Panel(
        "All branches of a kind removed from a block",
        "change of test accuracy",
        ("specialisation/*",),
        percent=True,
    ),
)

_PAPER = {
    "coded.mu": 6.0,
    "coded.exponent": 4.0,
    "model.drop_rate": 0.1,
    "model.aggregate": "sum",
    "model.normalize": True,
    "coded.block_gradients": False,
}


def _printed(
    model: str, dataset: str, coded: float, plain: float, more: Mapping[Any, float], **own: Any
) -> tuple[Reference, ...]:
    """Test accuracies of one data set: Table 2's, and those that the text gives for variants."""

    def reference(value: float, *fields: tuple[str, Any]) -> Reference:
        return Reference(model, dataset, "test_accuracy", value, {**_PAPER, **own, **dict(fields)})

    return (
        Reference(model, dataset, "test_accuracy", plain, text="paper's ResNeXt"),
        reference(coded),
        *(reference(value, field) for field, value in more.items()),
    )


#: Table 2, section 4.5 (exponents) and appendix B (mu on ImageNet).
REFERENCES = (
    *_printed(
        "coded_resnext29_10x11d_cifar10", "cifar10", 0.9441, 0.9366,
        {("coded.exponent", 2.0): 0.931, ("coded.exponent", 1.0): 0.871},
    ),
    *_printed("coded_resnext29_20x6d_cifar100", "cifar100", 0.7828, 0.7686, {}),
    *_printed(
        "coded_resnext50_32x4d_imagenet", "imagenet2012", 0.7812, 0.7805,
        {("coded.mu", 4.0): 0.776}, **{"coded.mu": 1.0},
    ),
)  # fmt: skip

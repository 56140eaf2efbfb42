"""What the suite runs: groups of models that take turns, and the commands of its parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

PARTS = ("steps", "inference", "slim", "input", "torch")


@dataclasses.dataclass(frozen=True)
class Group:
    """Models that take turns in one process, so that their ratios mean something.

    Attributes:
      models: as benchmarks.train_step names them; ratios are to the first.
      batch: examples of a step on two CPU cores.
      large: the same on an accelerator.
      size: side of the images; None is the models' usual one.
      quick: whether it is part of the quick suite.
      torch: whether the PyTorch yardstick has them too.
    """

    models: tuple[str, ...]
    batch: int
    large: int
    size: int | None = None
    quick: bool = False
    torch: bool = False

    @property
    def name(self) -> str:
        """Of the group: its first model."""
        return self.models[0]


@dataclasses.dataclass(frozen=True)
class Job:
    """One process of the suite.

    Attributes:
      part: one of PARTS.
      name: what its result is kept under.
      module: of benchmarks/, run as a command.
      arguments: of the command.
      models: that it measures, for the limit of time.
    """

    part: str
    name: str
    module: str
    arguments: tuple[str, ...]
    models: int = 1


def _ours(name: str) -> tuple[str, ...]:
    """A network whose branches listen, beside all masks one, and beside its ResNeXt."""
    return name, f"{name}:connectivity=ones", f"{name}:connectivity=full"


C10 = ("resnext29_10x11d", "coded_resnext29_10x11d_cifar10")
C100 = ("resnext29_20x6d", "coded_resnext29_20x6d_cifar100")
IMAGENET = ("resnext50_32x4d", "coded_resnext50_32x4d_imagenet")

GROUPS = (
    Group(("resnext_digits", "coded_resnext_digits"), 64, 1024, quick=True),
    Group(_ours("maskconnect_digits"), 64, 1024, quick=True),
    Group(("resnext11_10x4d_cifar10", "coded_resnext11_10x4d_cifar10"), 32, 1024),
    Group(C10, 32, 512, torch=True),
    Group(C100, 32, 512, torch=True),
    Group(IMAGENET, 16, 128, size=160, torch=True),
    Group(_ours("maskconnect20_w4_c8"), 32, 128),
    Group(_ours("maskconnect29_w8_c8"), 32, 128),
    Group(("maskconnect29_w4_c8", "maskconnect29_w4_c8:connectivity=full"), 32, 128),
    Group(("maskconnect29_w64_c8",), 4, 128),
    Group(("maskconnect20_w4_c8_miniimagenet", "maskconnect29_w8_c8_miniimagenet"), 8, 64),
    Group(("resnet50", "resnet101", "resnext101_32x4d"), 4, 64, size=160),
    Group(("resnext101_64x4d",), 4, 64, size=160),
    Group(("maskconnect50_w4_c32",), 4, 32, size=160),
    Group(("maskconnect101_w4_c32",), 2, 16, size=160),
    Group(("maskconnect101_w4_c64",), 2, 8, size=160),
)

#: What is taken out of, and whether the quick suite has it.
SLIM = (
    ("coded_resnext_digits", True),
    ("coded_resnext29_10x11d_cifar10", False),
    ("coded_resnext29_20x6d_cifar100", False),
    ("maskconnect29_w8_c8:connectivity=random,fan_in=1", False),
)

#: Part -> what measures models in it.
MODULES = {"steps": "train_step", "inference": "inference"}
_QUICK_BATCH = 8


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
      quick: the smallest models in a few rounds, for a first look.
      accelerator: with batches for a GPU or TPU.
      rounds: timed steps of each model.
      dtype: that networks compute in.
    """

    quick: bool = False
    accelerator: bool = False
    rounds: int = 4
    dtype: str = "float32"

    def groups(self) -> tuple[Group, ...]:
        """Those that are measured."""
        return tuple(group for group in GROUPS if group.quick or not self.quick)

    def batch(self, group: Group) -> int:
        """Examples of a step."""
        if self.quick:
            return _QUICK_BATCH
        return group.large if self.accelerator else group.batch


def jobs(scale: Scale, parts: tuple[str, ...]) -> Iterator[Job]:
    """The processes of some parts, in the order of PARTS.

    What takes turns with PyTorch is not measured alone as well.
    """
    beside = "torch" in parts
    for part in PARTS:
        if part not in parts:
            continue
        if part in MODULES:
            groups = [group for group in scale.groups() if not (beside and group.torch)]
            yield from _models(scale, part, groups)
        else:
            yield from {"slim": _slim, "input": _input, "torch": _torch}[part](scale)


def _models(scale: Scale, part: str, groups: Iterable[Group]) -> Iterator[Job]:
    for group in groups:
        words = (*group.models, *_numbers(scale, group), "--json")
        yield Job(part, group.name, MODULES[part], words, len(group.models))


def _torch(scale: Scale) -> Iterator[Job]:
    groups = [group for group in GROUPS if group.torch]
    for part in MODULES:
        for group in groups[:1] if scale.quick else groups:
            words = [*group.models, *_numbers(scale, group), "--json"]
            words += ["--inference"] * (part == "inference") + ["--gpu"] * scale.accelerator
            yield Job(
                "torch", torch_name(part, group.name), "beside_torch", tuple(words),
                2 * len(group.models),
            )  # fmt: skip


def torch_name(part: str, group: str) -> str:
    """Of the record of a group beside PyTorch, in "steps" or "inference"."""
    return f"{part}: {group}"


def _numbers(scale: Scale, group: Group) -> list[str]:
    given = [f"--batch={scale.batch(group)}", f"--rounds={scale.rounds}", f"--dtype={scale.dtype}"]
    return given + ([f"--size={group.size}"] if group.size else [])


def _slim(scale: Scale) -> Iterator[Job]:
    for name, quick in SLIM:
        if quick or not scale.quick:
            batches = ("--batch=1", "--batch=32")
            rounds = f"--rounds={2 * scale.rounds}"  # they are short
            yield Job("slim", name, "slim", (name, *batches, rounds, "--json"), 2)


def _input(scale: Scale) -> Iterator[Job]:
    images = 32 if scale.quick else 320
    words = [f"--images={images}", f"--rounds={scale.rounds}", "--json"]
    yield Job("input", "streamed", "input", (*words, "--skip-step"), 3)
    if not scale.quick:
        yield Job("input", "resident", "input", (*words, "--skip-stream"), 2)

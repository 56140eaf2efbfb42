"""The slices that Cloud TPU lends: their accelerator types and the topologies behind them."""

from __future__ import annotations

import math
import re

from branchnets.aot.chips import CHIPS
from branchnets.errors import ConfigError

_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_DEEP = (
    *("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8"),
    *("4x8x8", "8x8x8", "8x8x16", "8x16x16"),
)

#: Generation -> meshes of chips, the one that is most like a cube of each size. libtpu has others.
#: https://docs.cloud.google.com/tpu/docs/v2, .../v3, .../v4, .../v5e, .../v5p, .../v6e
MESHES: dict[str, tuple[str, ...]] = {
    "v2": ("2x2", "4x4", "8x8", "8x16", "16x16"),
    "v3": ("2x2", "4x4", "4x8", "8x8", "8x16", "16x16", "16x32", "32x32"),
    "v4": _DEEP,
    "v5e": _FLAT,
    "v5p": (*_DEEP, "16x16x16", "16x16x24"),
    "v6e": _FLAT,
}
# What an accelerator type counts: TensorCores, two a chip, or chips.
_COUNTED = {"v2": 2, "v3": 2, "v4": 2, "v5p": 2, "v5e": 1, "v6e": 1}
# Cloud TPU's name of a generation where it is another.
_TYPES = {"v5e": "v5litepod"}


def chips(mesh: str) -> int:
    """How many chips a mesh has.

    >>> chips("2x2x4")
    16
    """
    return math.prod(map(int, mesh.split("x")))


def type_of(generation: str, mesh: str) -> str:
    """The accelerator type of a mesh.

    >>> type_of("v3", "4x4"), type_of("v5e", "4x4")
    ('v3-32', 'v5litepod-16')
    """
    return f"{_TYPES.get(generation, generation)}-{chips(mesh) * _COUNTED[generation]}"


def topology_name(name: str) -> str:
    """GENERATION:MESH of a name that is one, or that is an accelerator type.

    >>> topology_name("v3-32"), topology_name("v5litepod-16"), topology_name("v4:2x2x1")
    ('v3:4x4', 'v5e:4x4', 'v4:2x2x1')

    Raises:
      ConfigError: no such generation, no mesh, or no such accelerator type; the message names those
        that there are.
    """
    if (match := re.fullmatch(r"(\w+)-([1-9]\d*)", name)) is not None:
        generation = {old: new for new, old in _TYPES.items()}.get(match[1], match[1])
        _check(name, generation)
        count = int(match[2])
        for mesh in MESHES[generation]:
            if chips(mesh) * _COUNTED[generation] == count:
                return f"{generation}:{mesh}"
        what = "TensorCores" if _COUNTED[generation] == 2 else "chips"
        raise ConfigError(
            f"there is no {name}: the number is that of {what}. The nearest: "
            f"{nearest(generation, count / _COUNTED[generation])}."
        )
    generation, _, mesh = name.partition(":")
    _check(name, generation)
    if re.fullmatch(r"[1-9]\d*(x[1-9]\d*)+", mesh) is None:
        raise ConfigError(
            f"unknown topology {name!r}: write {generation}:MESH, a mesh of chips, or the "
            f"accelerator type; {generation} has {_listed(generation, MESHES[generation])}."
        )
    return name


def _check(name: str, generation: str) -> None:
    if generation not in CHIPS:
        raise ConfigError(
            f"topology {name!r}: there is no generation {generation!r} of TPUs here, but "
            f"{', '.join(CHIPS)}. A name is GENERATION:MESH, such as v2:2x2 or v4:2x2x2, or an "
            "accelerator type, such as v2-8, v4-16 or v5litepod-16."
        )


def nearest(generation: str, size: float) -> str:
    """The accelerator types nearest to a number of chips, one smaller and one larger, in words.

    >>> nearest("v3", 24)
    'v3-32 (v3:4x4) and v3-64 (v3:4x8)'
    """
    sizes = [chips(mesh) for mesh in MESHES[generation]]
    below = [i for i, count in enumerate(sizes) if count <= size][-1:]
    above = [i for i, count in enumerate(sizes) if count > size][:1]
    return _listed(generation, [MESHES[generation][i] for i in below + above])


def _listed(generation: str, meshes: list[str] | tuple[str, ...]) -> str:
    words = [f"{type_of(generation, mesh)} ({generation}:{mesh})" for mesh in meshes]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)

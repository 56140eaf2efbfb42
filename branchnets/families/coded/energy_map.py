"""The class x branch energies of a coded block as text."""

from __future__ import annotations

import numpy as np

from branchnets.families.coded.codes import CodingScheme

SHADES = " ░▒▓█"


def render_energy_map(
    energies: np.ndarray,
    scheme: CodingScheme,
    class_names: tuple[str, ...] = (),
    block: str = "",
    max_classes: int = 20,
) -> str:
    """Draws which branches work for which class, beside the code that asked for it.

    Args:
      energies: mean energies after normalisation, [K, N]; nan for a class without examples.
      scheme: the block's coding scheme.
      class_names: K names; indices where there are none.
      block: shown in the title.
      max_classes: at most so many rows.
    """
    classes, branches = energies.shape
    names = [str(name) for name in class_names] or [str(k) for k in range(classes)]
    shown = min(classes, max_classes)
    wide = max(len(name) for name in names[:shown])
    # An active branch is asked for an energy of N / N_act (Eq. 5): that is full shade.
    level = np.clip(np.nan_to_num(energies) * scheme.active / scheme.branches, 0, 1)
    shade = np.rint(level * (len(SHADES) - 1)).astype(int)
    rows = [
        f"Energy of each branch of {block}, by class; beside it, what the code asked for:",
        f"  {'class':<{wide}}  {'measured':<{max(branches, 8)}}   code",
    ]
    for k in range(shown):
        drawn = "".join(SHADES[i] for i in shade[k]).ljust(max(branches, 8))
        code = "".join("█" if bit else "·" for bit in scheme.codewords[k])
        rows.append(f"  {names[k]:<{wide}}  {drawn}   {code}")
    if shown < classes:
        rows.append(f"  ... and {classes - shown} more classes")
    return "\n".join(rows)

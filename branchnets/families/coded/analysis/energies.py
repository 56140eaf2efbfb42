"""The class x branch mean energies of every coded block, beside its coding scheme (Fig. 1c)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from branchnets.families.coded.analysis import early
from branchnets.families.coded.codes import CodingScheme
from branchnets.families.study import Subject
from branchnets.report import style
from branchnets.report.content import Figure, Section, Table

if TYPE_CHECKING:
    from branchnets.families.coded.family import CodedFamily

#: Rows of a heat map at most.
MOST_ROWS = 50


def section(family: CodedFamily, subject: Subject) -> Section | None:
    """Energy maps of the test split; None without coded blocks."""
    from branchnets.families.coded.family import energy_on_code

    if not family.schemes:
        return None
    maps, n = energy_maps(family, subject)
    on_code = {b: energy_on_code(m, family.schemes[b].codewords) for b, m in maps.items()}
    shown = sampled_rows(family.model.num_classes)
    return Section(
        "Energies",
        _text(family, on_code, n),
        tuple(_figure(b, maps[b], family.schemes[b], subject, shown) for b in maps),
        (_schemes(family), _shares(family, on_code), _energies(maps, family, subject)),
        {"energy_on_code": on_code},
    )


def energy_maps(family: CodedFamily, subject: Subject) -> tuple[dict[str, np.ndarray], int]:
    """(block -> mean energy of each branch by class, [K, N]; examples), of the test split.

    A class without examples has nan.
    """
    energies = early.energies(family, subject)
    labels = early.labels(family, subject)
    classes = family.model.num_classes
    count = np.bincount(labels, minlength=classes)
    maps = {}
    for block, values in energies.items():
        total = np.zeros((classes, values.shape[1]))
        np.add.at(total, labels, values)
        with np.errstate(invalid="ignore"):
            maps[block] = total / np.where(count, count, np.nan)[:, None]
    return maps, len(labels)


def sampled_rows(classes: int) -> np.ndarray:
    """The classes that are drawn: all, or evenly spread ones."""
    if classes <= MOST_ROWS:
        return np.arange(classes)
    return np.unique(np.linspace(0, classes - 1, MOST_ROWS).round().astype(int))


def _text(family: CodedFamily, on_code: dict[str, float], n: int) -> str:
    gains = {b: on_code[b] / (s.active / s.branches) for b, s in family.schemes.items()}
    shares = ", ".join(
        f"{b} {100 * share:.1f} % (without code {100 * s.active / s.branches:.0f} %)"
        for (b, share), s in zip(on_code.items(), family.schemes.values(), strict=True)
    )
    weakest = min(gains, key=lambda b: gains[b])
    rising = all(
        a <= b for a, b in zip(list(gains.values()), list(gains.values())[1:], strict=False)
    )
    order = (
        "The concentration on the code, as a multiple of chance, rises from block to block."
        if rising
        else "The concentration on the code does not rise at every block."
    )
    return (
        "E(t_n), the mean square of what branch n adds to a block (Eq. 2), is divided by the mean "
        "over the block's N branches (Eq. 3), so the energies of a block always sum to N, and the "
        "coding loss (Eq. 5) pulls r E towards the codeword of the class. Each map shows the mean "
        f"of r E over the test images of a class ({n:,} in all) beside the code: where the two "
        "panels look alike, the code can be seen in the network.\n\n"
        f"Share of its energy that a block spends in the branches its code assigns: {shares}. "
        f"{order} It is weakest in {weakest} ({gains[weakest]:.2f} times chance)."
    )


def _figure(
    block: str, energies: np.ndarray, scheme: CodingScheme, subject: Subject, shown: np.ndarray
) -> Figure:
    ratio = scheme.active / scheme.branches
    height = 1.5 + 0.17 * max(len(shown), 10)
    drawing, (left, right) = style.figure(7.2, height, 1, 2, sharey=True)
    panels = ((left, ratio * energies, "measured: mean r E"), (right, scheme.codewords, "code"))
    for axes, values, title in panels:
        axes.grid(False)
        image = axes.imshow(
            values[shown], cmap="viridis", vmin=0, vmax=1, aspect="auto", interpolation="nearest"
        )
        style.label(axes, "branch", "class" if axes is left else "", title)
        step = math.ceil(scheme.branches / 16)
        axes.set_xticks(range(0, scheme.branches, step))
    left.set_yticks(range(len(shown)), [subject.class_names[a] for a in shown], fontsize=7)
    drawing.colorbar(image, ax=[left, right], label="r E", extend="max")
    rows = (
        f" {len(shown)} of {len(energies):,} classes, evenly spread, are shown; the CSV has all."
        if len(shown) < len(energies)
        else ""
    )
    return Figure(
        f"fig1c_energies_{block.replace('/', '_')}",
        f"Block {block}: mean energy of every branch by class, times r = "
        f"{scheme.active}/{scheme.branches} (the code asks for 1 or 0), and its coding scheme "
        f"{scheme.name}.{rows}",
        drawing,
    )


def _energies(maps: dict[str, np.ndarray], family: CodedFamily, subject: Subject) -> Table:
    rows = tuple(
        (block, subject.class_names[a], n, float(values[a, n]), int(codewords[a, n]))
        for block, values in maps.items()
        for codewords in (family.schemes[block].codewords,)
        for a, n in np.ndindex(values.shape)
        if np.isfinite(values[a, n])
    )
    return Table(
        "fig1c_energies",
        "Mean energy E of every branch by class after Eq. 3 (those of a block sum to N), and the "
        "digit of the codeword.",
        ("block", "class", "branch", "energy", "code"),
        rows,
    )


def _shares(family: CodedFamily, on_code: dict[str, float]) -> Table:
    return Table(
        "energy_on_code",
        "Share of its energy that a block spends in the branches its code assigns, mean over "
        "classes, and what a network without code would give (N_act / N).",
        ("block", "share on the code", "without code"),
        tuple((b, share, family.schemes[b].active / family.schemes[b].branches)
              for b, share in on_code.items()),
    )  # fmt: skip


def _schemes(family: CodedFamily) -> Table:
    blocks: dict[str, list[str]] = {}
    schemes = {}
    for block, scheme in family.schemes.items():
        blocks.setdefault(scheme.name, []).append(block)
        schemes[scheme.name] = scheme
    rows = tuple(
        (name, ", ".join(blocks[name]), s.num_classes, s.branches, s.active, s.min_distance,
         int(s.column_sums.min()), int(s.column_sums.max()))
        for name, s in schemes.items()
    )  # fmt: skip
    return Table(
        "table3_coding_schemes",
        "The coding schemes (appendix A): classes K, branches N, active N_act, smallest Hamming "
        "distance H_min of two codewords, and the classes that a branch works for, fewest and "
        "most.",
        ("scheme", "blocks", "K", "N", "N_act", "H_min", "S_min", "S_max"),
        rows,
    )

"""Schemes of 1000 classes and 32 branches that no other scheme of their ratio beats in H_min."""

from __future__ import annotations

import numpy as np

from branchnets.families.coded.search import groups, linear, orbits, packed


def bch_pairs(classes: int = 1000) -> np.ndarray:
    """Complementary pairs of the weight-16 words of the extended [32, 11, 12] BCH code.

    The 1054 words of weight 16 are closed under complement, so that any pairs use every branch
    equally often; the distances are 12, 16, 20 and 32.

    Returns:
      [K, 32] uint8, K even; class 2 i + 1 has the complement of class 2 i.
    """
    code = linear.cyclic_code(32, (0, 1, 3))  # Tr(a x) + Tr(b x^3) + c
    words = packed.unique(code.words())
    words = packed.unpack(words[packed.weights(words) == 16], 32)
    half = words[words[:, 0] == 1][: classes // 2]
    return np.stack([half, 1 - half], axis=1).reshape(-1, 32)


#: Words of 8 ones among GF(2)^5 and the linear map that the group has beside the translations,
#: found once by the search over random linear maps (`strategies.transitive_orbits`).
MAP = (2, 4, 8, 3, 16)
ORBITS = ((0, 2, 5, 6, 10, 12, 16, 17), (3, 7, 12, 13, 17, 18, 19, 20))
FLATS = (10, 11, 14, 15, 16, 17, 20, 21)


def translation_orbits() -> np.ndarray:
    """1000 words of 8 ones among the points of GF(2)^5, 8 apart, every branch in 250.

    Two orbits of 480 words under the translations and a linear map of order 15, and the first ten
    parallel classes (4 words each) in the orbit of an affine 3-flat.  Each is a union of orbits of
    the translations, so that it covers every point equally often.

    Returns:
      [1000, 32] uint8.
    """
    translations = groups.abelian((2,) * 5)
    group = translations.with_map("", groups.linear_map(MAP))
    table = np.zeros((3, 32), np.uint8)
    for row, points in enumerate((*ORBITS, FLATS)):
        table[row, list(points)] = 1
    first, second, flats = (
        orbits.orbits(word[None], orbits.elements(group))[0] for word in packed.pack(table)
    )
    classes = orbits.orbits(flats, translations.translations)[:10]
    return packed.unpack(np.concatenate([first, second, *classes]), 32)

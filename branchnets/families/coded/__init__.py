"""Coded ResNeXt: every branch works for a set of classes that a code fixes before training.

Source: A. Avranas and M. Kountouris, "Coded ResNeXt: a network for designing disentangled
information paths".  What the paper calls a subNN is a branch here.
"""

from branchnets.families.coded import zoo as zoo
from branchnets.families.coded.family import CodedFamily

FAMILY = CodedFamily

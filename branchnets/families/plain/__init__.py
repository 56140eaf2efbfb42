"""Plain ResNet and ResNeXt: the baselines that every other family is compared with."""

from branchnets.families.plain import zoo as zoo
from branchnets.families.plain.family import PlainFamily

FAMILY = PlainFamily

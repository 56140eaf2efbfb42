"""MaskConnect: branches that learn which branches of the module before they listen to.

Source: K. Ahmed and L. Torresani, "Connectivity learning in multi-branch networks" (MaskConnect;
the workshop version calls the method GateConnect and its masks gates).
"""

from branchnets.families.maskconnect import zoo as zoo
from branchnets.families.maskconnect.family import MaskConnectFamily

FAMILY = MaskConnectFamily

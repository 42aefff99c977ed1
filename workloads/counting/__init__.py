"""Executed MACs, checked three ways, and the published rules: what a model costs.

Torch and fvcore are imported only where a piece has to be counted that is not in the cache.
"""

from workloads.counting.ops import Disagreement, UnknownOperation
from workloads.counting.parallel import profile_all
from workloads.counting.pieces import RULES, Rule
from workloads.counting.profile import BlockProfile, Profile, StageProfile, profile

__all__ = [
    "RULES",
    "BlockProfile",
    "Disagreement",
    "Profile",
    "Rule",
    "StageProfile",
    "UnknownOperation",
    "profile",
    "profile_all",
]

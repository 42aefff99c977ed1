"""Executed MACs, checked three ways, and the published rules: what a model costs. Imports torch and fvcore."""

from workloads.counting.ops import Disagreement, UnknownOperation
from workloads.counting.profile import BlockProfile, Profile, StageProfile, profile
from workloads.counting.rules import RULES, Rule

__all__ = [
    "RULES",
    "BlockProfile",
    "Disagreement",
    "Profile",
    "Rule",
    "StageProfile",
    "UnknownOperation",
    "profile",
]

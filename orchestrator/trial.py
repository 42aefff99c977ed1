"""A trial's identity: the hash of everything that can change its result, and nothing else. No torch here.

`trial_id` is the first 16 hex digits of SHA-256 over the canonical JSON of the fully resolved trial, defaults
included, without what `IDENTITY_FREE` names. `arm_id` is the same without the seed. A default that changes its
meaning changes every id: golden ids in the tests fail when that happens by accident.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from workloads.spec import TrialSpec

# What cannot change a trial's result. Device count, workers and logging never enter a TrialSpec at all.
# Of starting weights the content counts (`start.sha256`), not the place.
IDENTITY_FREE = (
    "recipe.name",
    "protocol.name",
    "protocol.batch",
    "workload.root",
    "start.path",
    "start.allow",
)

ID_DIGITS = 16


@dataclass(frozen=True)
class Trial:
    """One fully resolved configuration with one seed: what a worker executes."""

    spec: TrialSpec

    @cached_property
    def content(self) -> dict[str, Any]:
        """The resolved trial as plain JSON values."""
        return self.spec.to_json()

    @cached_property
    def trial_id(self) -> str:
        """16 hex digits over everything that can change the result, the seed included."""
        return identity(self.content)

    @cached_property
    def arm_id(self) -> str:
        """16 hex digits over everything but the seed."""
        return identity({key: value for key, value in self.content.items() if key != "seed"})

    def reseeded(self, seed: int) -> Trial:
        """The same configuration with another seed, its values not written out anew: plans have thousands."""
        other = Trial(self.spec.model_copy(update={"seed": seed}))
        vars(other)["content"] = {**self.content, "seed": seed}
        return other


def identity(content: Mapping[str, Any]) -> str:
    """The id of a resolved trial (or arm) given as plain JSON values."""
    bare = content
    for path in IDENTITY_FREE:
        bare = _without(bare, path.split("."))
    return hashlib.sha256(canonical_json(bare).encode()).hexdigest()[:ID_DIGITS]


def _without(content: Mapping[str, Any], path: list[str]) -> Mapping[str, Any]:
    """The same values without what `path` leads to; copies only the mappings on the way (plans hash by thousands)."""
    key, *rest = path
    if key not in content:
        return content
    if not rest:
        return {kept: value for kept, value in content.items() if kept != key}
    return {**content, key: _without(content[key], rest)}


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, no spaces, no NaN; 1 and 1.0 stay different."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)

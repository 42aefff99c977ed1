"""The base of every config here: immutable, complete, and strict about what it does not know."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Immutable pydantic model; unknown keys and wrong types are errors, and JSON round-trips."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, validate_default=True, allow_inf_nan=False)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, defaults included: what identities and workers are made of."""
        return self.model_dump(mode="json")

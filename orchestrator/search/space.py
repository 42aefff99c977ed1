"""The `search` section of a sweep: a space to draw configurations from, where axes would list them. No Optuna here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from workloads.frozen import Frozen

SEARCH_SEED = 1000  # not among the seeds that a sweep counts from 0: what was selected is not what is compared
MOST_CORNERS = 64


class Dimension(Frozen):
    """What one path may be: exactly one of these.

    Attributes:
        choice: any of these values.
        uniform: a number between two bounds.
        log_uniform: the same, its logarithm uniform.
        integer: a whole number between two bounds, both included.
        log_integer: the same, its logarithm uniform.
    """

    choice: tuple[Any, ...] | None = Field(None, min_length=1)
    uniform: tuple[float, float] | None = None
    log_uniform: tuple[float, float] | None = None
    integer: tuple[int, int] | None = None
    log_integer: tuple[int, int] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            allowed = ", ".join(type(self).model_fields)
            raise ValueError(f"needs exactly one of {allowed}, given {', '.join(given) or 'none'}")
        if given[0] != "choice":
            low, high = self.bounds
            if low >= high or (given[0].startswith("log") and low <= 0):
                positive = " and above 0" if given[0].startswith("log") else ""
                raise ValueError(f"{given[0]} needs two bounds, the lower first{positive}, given [{low:g}, {high:g}]")
        return self

    @property
    def kind(self) -> str:
        """The name of the one that is given."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)

    @property
    def bounds(self) -> tuple[float, float]:
        """Lower and upper bound of a number."""
        low, high = getattr(self, self.kind)
        return low, high

    @property
    def ends(self) -> Sequence[Any]:
        """Where the cost can be highest: every choice, or both bounds."""
        return self.choice if self.choice is not None else self.bounds


class Search(Frozen):
    """Draw configurations from a space, and stop early those that do badly.

    Attributes:
        space: dotted path -> what it may be; set in the order written.
        configurations: how many to draw; the base itself and the control are trained besides, never stopped.
        sampler: `random` (each drawn alone) or `tpe` (Optuna's: draws where earlier ones did well).
        scheduler: who stops trials early: `asha` (asynchronous successive halving), `hyperband` (several brackets of
            it), `median` (worse than the median at that epoch), `none`.
        metric: judged after every epoch.
        mode: whether high or low is good.
        grace_epochs: nobody is stopped before.
        reduction: `asha` and `hyperband` let one of so many go on at each rung.
        concurrent: how many are drawn before the first of them has ended.
        seed: of the trials and of the sampler; other than the sweep's `seeds`, which are for the comparison afterwards.
        confirm: how many of the best go into `best.yaml`, a sweep that compares them with the control over all seeds.
    """

    space: dict[str, Dimension] = Field(min_length=1)
    configurations: int = Field(20, ge=1, le=10_000)
    sampler: Literal["random", "tpe"] = "tpe"
    scheduler: Literal["none", "asha", "hyperband", "median"] = "asha"
    metric: str = "top1_percent"
    mode: Literal["max", "min"] = "max"
    grace_epochs: int = Field(1, ge=1)
    reduction: int = Field(3, ge=2)
    concurrent: int = Field(4, ge=1)
    seed: int = Field(SEARCH_SEED, ge=0)
    confirm: int = Field(3, ge=1)

    def continues(self, before: Search) -> bool:
        """Whether it goes on with what `before` drew: only how many in all, at once and to confirm may differ."""
        free = {"configurations", "concurrent", "confirm"}
        return self.model_dump(exclude=free) == before.model_dump(exclude=free)

    def corners(self) -> list[Mapping[str, Any]]:
        """Settings at the space's ends, among which the most expensive one is looked for; at most 64 of them."""
        ends = [dimension.ends for dimension in self.space.values()]
        total = 1
        for values in ends:
            total *= len(values)
        step = -(-total // MOST_CORNERS)
        return [dict(zip(self.space, values, strict=True)) for values in _every(step, product(*ends))]


def _every(step: int, values: Iterator[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    return islice(values, 0, None, step)

"""The `search` section of a sweep: a space to draw configurations from, where axes would list them. No Optuna here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from orchestrator.judged import JUDGED_ON
from workloads.frozen import Frozen
from workloads.recipes import CHANGEABLE

SEARCH_SEED = 1000  # not among the seeds that a sweep counts from 0: what was selected is not what is compared
MOST_CORNERS = 64
OTHER_DATA = ("workload", *(f"workload.{name}" for name in JUDGED_ON))
CHANGES = "recipe.changes"  # where a member of a population says how it was changed on its way


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
        configurations: how many to draw; the base itself and the control are trained besides, never stopped. Of `pbt`
            the size of the population.
        sampler: `random` (each drawn alone) or `tpe` (Optuna's: draws where earlier ones did well).
        scheduler: who stops trials early: `asha` (asynchronous successive halving), `hyperband` (several brackets of
            it), `median` (worse than the median at that epoch), `none`; or `pbt` (population based training), which
            lets the worst go on from a better one's checkpoint under changed settings.
        metric: judged after every epoch.
        mode: whether high or low is good.
        grace_epochs: nobody is stopped before.
        reduction: `asha` and `hyperband` let one of so many go on at each rung.
        interval: of `pbt`: epochs between its decisions.
        quantile: of `pbt`: the share of the population that is replaced, and the share that it is replaced by.
        resample: of `pbt`: the probability that a setting is drawn anew, where it is otherwise multiplied.
        perturb: of `pbt`: by one of these, within its bounds; a `choice` is drawn anew.
        concurrent: how many are drawn before the first of them has ended; `pbt` needs its whole population.
        seed: of the trials and of the sampler; other than the sweep's `seeds`, which are for the comparison afterwards.
        confirm: how many of the best go into `best.yaml`, a sweep that compares them with the control over all seeds.
    """

    space: dict[str, Dimension] = Field(min_length=1)
    configurations: int = Field(20, ge=1, le=10_000)
    sampler: Literal["random", "tpe"] = "tpe"
    scheduler: Literal["none", "asha", "hyperband", "median", "pbt"] = "asha"
    metric: str = "top1_percent"
    mode: Literal["max", "min"] = "max"
    grace_epochs: int = Field(1, ge=1)
    reduction: int = Field(3, ge=2)
    interval: int = Field(1, ge=1)
    quantile: float = Field(0.25, gt=0, le=0.5)
    resample: float = Field(0.25, ge=0, le=1)
    perturb: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.8, 1.25)
    concurrent: int = Field(4, ge=1)
    seed: int = Field(SEARCH_SEED, ge=0)
    confirm: int = Field(3, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _population_is_drawn_at_random(cls, given: Any) -> Any:
        is_population = isinstance(given, Mapping) and given.get("scheduler") == "pbt"
        return {"sampler": "random", **given} if is_population else given

    @model_validator(mode="after")
    def _ranks_on_one_data_set(self) -> Self:
        wrong = [path for path in self.space if path in OTHER_DATA]
        if wrong:
            raise ValueError(
                f"{wrong[0]} in the space would rank accuracies on different data: search on one data set, or compare "
                "several with axes"
            )
        return self

    @model_validator(mode="after")
    def _can_be_a_population(self) -> Self:
        if self.scheduler != "pbt":
            return self
        wrong = []
        if self.configurations < 2:
            wrong.append(f"configurations must be at least 2 for a population, given {self.configurations}")
        if self.sampler != "random":
            wrong.append(f"pbt draws its population at random, given sampler {self.sampler!r}")
        allowed = [f"recipe.{name}" for name in CHANGEABLE]
        for path in self.space:
            if path not in allowed:
                wrong.append(f"{path} cannot change during training, as pbt does; it can: {', '.join(allowed)}")
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def continues(self, before: Search) -> bool:
        """Whether it goes on with what `before` drew: only how many in all, at once and to confirm may differ."""
        free = {"concurrent", "confirm"} | (set() if self.scheduler == "pbt" else {"configurations"})
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

"""Which configuration a search tries next, and whom it stops: Optuna's samplers and pruners. Only importer of optuna.

Everything is a function of the search's seed, of the numbers of the configurations, and of what the ledger says about
them: a search that was killed draws the same configurations again and goes on.

References: Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning" (asha); Li et al. 2018, "Hyperband";
Golovin et al. 2017, "Google Vizier" (median); Bergstra et al. 2011 (tpe).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import UserError
from orchestrator.search.space import Dimension, Search


@dataclass(frozen=True)
class Past:
    """What became of a configuration: its metric after each epoch (1-based), and how it ended, if it has.

    Attributes:
        state: `finished`, `stopped_early`, `failed` (any other end, or it cannot exist), or `open`.
        value: the final metric of a finished one.
    """

    epochs: Mapping[int, float]
    state: str = "open"
    value: float | None = None


class Proposals:
    """The configurations of one search, in the order drawn, and who of them goes on.

    Args:
        search: the sweep's section.
        epochs: of the longest trial that is not stopped.

    Raises:
        UserError: Optuna is not installed.
    """

    def __init__(self, search: Search, *, epochs: int) -> None:
        try:
            import optuna
        except ImportError as error:
            raise UserError(f"a search needs Optuna ({error}): pip install 'longrange[search]'") from error
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._optuna = optuna
        self._search = search
        self._distributions = {path: self._distribution(kind) for path, kind in search.space.items()}
        direction = "maximize" if search.mode == "max" else "minimize"
        # Optuna deals Hyperband's brackets by name and number: the name must not be random.
        self._study = optuna.create_study(study_name="longrange", direction=direction, pruner=self._pruner(epochs))
        self._trials: list[Any] = []
        self._stopped: set[int] = set()

    def draw(self) -> dict[str, Any]:
        """The next setting: dotted path -> value."""
        self._study.sampler = self._sampler(self._search.seed + len(self._trials))
        trial = self._study.ask(self._distributions)
        self._trials.append(trial)
        return self._setting(trial.params)

    def recall(self, setting: Mapping[str, Any], past: Past) -> None:
        """Take in the next setting, drawn by an earlier driver, and what became of it."""
        raw = {path: self._raw(self._search.space[path], value) for path, value in setting.items()}
        self._study.enqueue_trial(raw)
        self._trials.append(self._study.ask(self._distributions))
        number = len(self._trials) - 1
        for epoch, value in sorted(past.epochs.items()):
            self.report(number, epoch, value)
        if past.state != "open":
            self.end(number, past.state, past.value)

    def report(self, number: int, epoch: int, value: float) -> None:
        """Tell the metric of configuration `number` after `epoch` epochs; telling it again changes nothing.

        What is not finite is as bad as can be. The pruner is asked each time, whoever wants to know: successive halving
        notes on that occasion that a trial came to a rung, and with what, for those that it compares later.
        """
        trial = self._trials[number]
        if epoch in self._frozen(number).intermediate_values:
            return
        worst = -math.inf if self._search.mode == "max" else math.inf
        trial.report(value if math.isfinite(value) else worst, epoch)
        (self._stopped.add if trial.should_prune() else self._stopped.discard)(number)

    def is_stopped(self, number: int) -> bool:
        """Whether configuration `number` did too badly to go on after the newest epoch that was told."""
        return number in self._stopped

    def end(self, number: int, state: str, value: float | None = None) -> None:
        """Configuration `number` has ended; see `Past`."""
        states = self._optuna.trial.TrialState
        if state == "finished" and value is not None and math.isfinite(value):
            self._study.tell(self._trials[number], value)
            return
        # Optuna takes a pruned trial by its last value, a failed one not at all.
        self._study.tell(self._trials[number], state=states.PRUNED if state == "stopped_early" else states.FAIL)

    def __len__(self) -> int:
        return len(self._trials)

    def _frozen(self, number: int) -> Any:
        return self._study.get_trials(deepcopy=False)[number]

    def _distribution(self, kind: Dimension) -> Any:
        known = self._optuna.distributions
        if kind.choice is not None:  # by position: values may be lists and mappings, which Optuna does not take
            return known.CategoricalDistribution(list(range(len(kind.choice))))
        low, high = kind.bounds
        log = kind.kind.startswith("log")
        if kind.kind.endswith("integer"):
            return known.IntDistribution(int(low), int(high), log=log)
        return known.FloatDistribution(low, high, log=log)

    def _setting(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        space = self._search.space
        return {path: kind.choice[raw[path]] if kind.choice is not None else raw[path] for path, kind in space.items()}

    def _raw(self, kind: Dimension, value: Any) -> Any:
        if kind.choice is None:
            return value
        return next(index for index, choice in enumerate(kind.choice) if _plain(choice) == _plain(value))

    def _sampler(self, seed: int) -> Any:
        samplers = self._optuna.samplers
        return samplers.RandomSampler(seed=seed) if self._search.sampler == "random" else samplers.TPESampler(seed=seed)

    def _pruner(self, epochs: int) -> Any:
        search, pruners = self._search, self._optuna.pruners
        grace, reduction = search.grace_epochs, search.reduction
        match search.scheduler:
            case "asha":
                return pruners.SuccessiveHalvingPruner(min_resource=grace, reduction_factor=reduction)
            case "hyperband":
                return pruners.HyperbandPruner(min_resource=grace, max_resource=epochs, reduction_factor=reduction)
            case "median":
                return pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=grace)
        return pruners.NopPruner()


def _plain(value: Any) -> Any:
    """Lists for tuples: what JSON makes of a value."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value

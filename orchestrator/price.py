"""What a trial will cost before it runs: seconds and memory from its profile, calibrated by what earlier trials took.

The estimate is simple on purpose and says where it comes from: training costs three times the forward pass (one
forward, two for the gradients), evaluation once. A rate in MAC/s turns that into seconds; it is taken from finished
trials of the same arm if there are any, else from trials of the same workload on the same kind of device, else from
a stated assumption. Rates are per worker: several are taken to be as many times as fast, which is the most they can
be, and divide a batch among their devices. Predicted against actual seconds are recorded, so the error is known.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from workloads.spec import TrialSpec

FORWARD_AND_BACKWARD = 3
BYTES_PER_PARAMETER = 16  # weight, gradient and two optimizer moments in float32

# Sustained training rates assumed where no trial has been timed yet, in MAC/s per device.
ASSUMED_RATE = {"cpu": 1.0e10, "cuda": 1.5e13}


@dataclass(frozen=True)
class PastTrial:
    """How long a finished trial took, and on what."""

    arm_id: str
    workload: str
    device: str
    macs: float  # over the whole training
    seconds: float
    predicted: float | None = None  # seconds, as its plan said
    workers: int = 1

    @property
    def worker_seconds(self) -> float:
        """Seconds that its workers took together."""
        return self.seconds * self.workers

    @property
    def macs_per_second(self) -> float:
        """The sustained rate of one worker."""
        return self.macs / self.worker_seconds


@dataclass(frozen=True)
class Price:
    """One trial's estimate; None where the number of clips or the model's cost is unknown."""

    seconds: float | None
    memory_bytes: int | None
    basis: str
    macs: float | None = None  # over the whole training


def device_kind(gpus: float) -> str:
    """What trains a trial that gets so many GPUs per worker."""
    return "cuda" if gpus else "cpu"


def clip_passes(spec: TrialSpec) -> float | None:
    """Forward-pass equivalents of one trial: clips seen in training (times 3) and in evaluation."""
    counts = spec.workload.clips()
    if counts is None:
        return None
    train, validation = counts
    views = spec.protocol.clips * {"centre": 1, "three": 3, "full": 1}[spec.protocol.crops]
    return float(train * spec.recipe.epochs * FORWARD_AND_BACKWARD + validation * views)


class Pricer:
    """Prices trials from past ones.

    Args:
        past: of any device.
        devices: the kinds of device that the plan's trials take.

    Attributes:
        error: how far off earlier plans were on these kinds of device: the median relative error, None if not known.
    """

    def __init__(self, past: Iterable[PastTrial] = (), *, devices: Collection[str] = ("cpu",)) -> None:
        known = [trial for trial in past if trial.device in devices and trial.seconds > 0]
        self.error = prediction_error([(trial.predicted, trial.seconds) for trial in known if trial.predicted])
        self._of_arm = _grouped(((trial.device, trial.arm_id), trial.worker_seconds) for trial in known)
        self._of_workload = _grouped(((trial.device, trial.workload), trial.macs_per_second) for trial in known)

    def price(
        self,
        spec: TrialSpec,
        arm_id: str,
        *,
        executed_macs: int | None,
        params: int | None,
        activation_bytes: int | None,
        device: str = "cpu",
        workers: int = 1,
    ) -> Price:
        """The estimate for one trial of this arm: memory is that of one device, `workers` is how many train it."""
        memory = None
        if params is not None and activation_bytes is not None:
            memory = params * BYTES_PER_PARAMETER + activation_bytes * -(-spec.recipe.batch // workers)
        passes = clip_passes(spec)
        macs = None if passes is None or executed_macs is None else executed_macs * passes
        together = "" if workers == 1 else f", {workers} workers as {workers} times one"
        if seconds := self._of_arm.get((device, arm_id)):
            basis = f"median of {len(seconds)} earlier trials of this arm{together}"
            return Price(median(seconds) / workers, memory, basis, macs)
        if macs is None:
            return Price(None, memory, "unknown: needs the data and the profile")
        rates = self._of_workload.get((device, spec.workload.name))
        rate = median(rates) if rates else ASSUMED_RATE[device]
        basis = f"rate of {len(rates)} earlier trials" if rates else f"assumed {rate:.1e} MAC/s on {device}"
        return Price(macs / rate / workers, memory, basis + together, macs)


def prediction_error(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Median of |predicted - actual| / actual over `(predicted, actual)` seconds; None without any."""
    errors = [abs(predicted - actual) / actual for predicted, actual in pairs if actual > 0]
    return median(errors) if errors else None


def _grouped(pairs: Iterable[tuple[tuple[str, str], float]]) -> dict[tuple[str, str], list[float]]:
    grouped: dict[tuple[str, str], list[float]] = {}
    for key, value in pairs:
        grouped.setdefault(key, []).append(value)
    return grouped

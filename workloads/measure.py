"""What a model really takes on this machine: raw times, throughput and peak memory. Measured, never modelled.

The numbers belong to the implementation that ran and to the environment they are stored with; what a model costs by
definition is `workloads.counting`'s business. CPU times are wall-clock; CUDA times come from events on the stream, so
that the queue between host and device is not measured.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import quantiles

import torch
from pydantic import Field, computed_field
from torch import Tensor, nn

from workloads.backbones.model import build_model
from workloads.frozen import Frozen
from workloads.processor import processor_name
from workloads.spec import ModelSpec


class MeasuredOn(Frozen):
    """Where and how the samples were taken; two measurements compare only if these agree.

    Attributes:
        device: `cpu`, `cuda:0`.
        device_name: as the driver or the operating system calls it.
        threads: CPU threads of torch.
        torch: version.
        cuda: version torch was built for; None for a CPU build.
        dtype: of the weights and the clips.
    """

    device: str
    device_name: str
    threads: int
    torch: str
    cuda: str | None
    dtype: str


class Measurement(Frozen):
    """Raw samples of one model at one batch size.

    Attributes:
        step: `forward` (evaluation, no gradients) or `training` (forward, backward, SGD update).
        batch: clips per step.
        warmup: steps run before the first sample.
        latency_ms: one value per step, in the order they were taken.
        peak_memory_bytes: CUDA: the most bytes that tensors held on the device, weights included. CPU: how far the
            process's resident memory rose above where it was before the first step; None where the system is silent.
        measured_on: the environment.
    """

    step: str
    batch: int = Field(ge=1)
    warmup: int = Field(ge=0)
    latency_ms: tuple[float, ...] = Field(min_length=1)
    peak_memory_bytes: int | None
    measured_on: MeasuredOn

    @computed_field  # type: ignore[prop-decorator]
    @property
    def p50_ms(self) -> float:
        """Median milliseconds per step."""
        return self._percentile(50)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def p95_ms(self) -> float:
        """95th percentile of the milliseconds per step, interpolated between samples."""
        return self._percentile(95)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def clips_per_second(self) -> float:
        """Throughput: all clips over the time of all steps."""
        return 1000 * self.batch * len(self.latency_ms) / sum(self.latency_ms)

    def _percentile(self, percent: int) -> float:
        if len(self.latency_ms) == 1:
            return self.latency_ms[0]
        return quantiles(self.latency_ms, n=100, method="inclusive")[percent - 1]


def measure_model(
    spec: ModelSpec,
    *,
    device: str = "cpu",
    batch: int = 1,
    training: bool = False,
    warmup: int = 3,
    samples: int = 20,
    threads: int | None = None,
) -> Measurement:
    """Build the model of `spec` with random weights and measure it on random clips; see `measure`.

    Args:
        spec: the model.
        device: `cpu`, `cuda`, `cuda:1`.
        batch: clips per step.
        training: measure training steps instead of evaluation.
        warmup: steps before the first sample.
        samples: steps measured.
        threads: CPU threads of torch while measuring; None leaves them as they are.

    Raises:
        ValueError: no such device here, an empty batch, or a model or batch that does not fit its memory.
    """
    if batch < 1:
        raise ValueError(f"measure needs a batch of at least 1 clip, given {batch}")
    backbone = spec.backbone
    try:
        with _device(device):
            model = build_model(spec)
            clips = torch.rand(batch, backbone.channels, backbone.frames, backbone.size, backbone.size)
        return measure(model, clips, training=training, warmup=warmup, samples=samples, threads=threads)
    except torch.OutOfMemoryError as error:
        raise ValueError(
            f"{backbone.name} at batch {batch} does not fit the memory of {device}: lower batch"
        ) from error


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    found = torch.cuda.device_count()
    if device.type == "cpu" or (device.type == "cuda" and (device.index or 0) < found):
        return device
    here = ", ".join(["cpu", *(f"cuda:{index}" for index in range(found))])
    raise ValueError(f"device {name!r} cannot be measured here: use one of {here} (torch {torch.__version__})")


def measure(
    model: nn.Module,
    clips: Tensor,
    *,
    training: bool = False,
    warmup: int = 3,
    samples: int = 20,
    threads: int | None = None,
) -> Measurement:
    """Time `samples` steps of `model` on `clips`, after `warmup` unmeasured ones.

    The model's weights are not changed: training steps update by a learning rate of zero. Its running statistics and
    its mode are put back.

    Args:
        model: on the device of `clips`.
        clips: `[B, C, T, H, W]`.
        training: forward, cross-entropy, backward and update, instead of an evaluation forward pass.
        warmup: steps before the first sample: allocations, kernel choice, caches.
        samples: steps measured.
        threads: CPU threads of torch while measuring; None leaves them as they are.

    Raises:
        ValueError: fewer than one sample, or negative warm-up.
    """
    if samples < 1 or warmup < 0:
        raise ValueError(f"measure needs samples >= 1 and warmup >= 0, given {samples} and {warmup}")
    cuda = clips.device.type == "cuda"
    with _as_found(model, threads):
        model.train(training)
        step = _training_step(model, clips) if training else _forward(model, clips)
        memory = _CudaMemory(clips.device) if cuda else _ResidentMemory()
        for _ in range(warmup):
            step()
        times = _cuda_times(step, samples, clips.device) if cuda else _cpu_times(step, samples)
        return Measurement(
            step="training" if training else "forward",
            batch=len(clips),
            warmup=warmup,
            latency_ms=tuple(times),
            peak_memory_bytes=memory.peak(),
            measured_on=_environment(clips),
        )


@contextlib.contextmanager
def _as_found(model: nn.Module, threads: int | None) -> Iterator[None]:
    """Put threads, mode, gradients and running statistics back afterwards."""
    before, mode = torch.get_num_threads(), model.training
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        model.train(mode)
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])
        for name, parameter in model.named_parameters():
            parameter.grad = gradients[name]


def _forward(model: nn.Module, clips: Tensor) -> Callable[[], None]:
    def step() -> None:
        with torch.inference_mode():
            model(clips)

    return step


def _training_step(model: nn.Module, clips: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    labels = torch.zeros(len(clips), dtype=torch.long, device=clips.device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(model(clips), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def _cpu_times(step: Callable[[], None], samples: int) -> list[float]:
    times = []
    for _ in range(samples):
        start = time.perf_counter()
        step()
        times.append(1000 * (time.perf_counter() - start))
    return times


def _cuda_times(step: Callable[[], None], samples: int, device: torch.device) -> list[float]:
    times = []
    with torch.cuda.device(device):
        torch.cuda.synchronize()
        for _ in range(samples):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            start.record()
            step()
            end.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(end))
    return times


class _CudaMemory:
    def __init__(self, device: torch.device) -> None:
        self._device = device
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)

    def peak(self) -> int:
        return int(torch.cuda.max_memory_allocated(self._device))


class _ResidentMemory:
    """Peak resident memory of this process; Linux tells it and lets the high-water mark be reset."""

    def __init__(self) -> None:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # 5 resets the high-water mark to what is resident now
        self._before = self._read("VmRSS")

    def peak(self) -> int | None:
        peak = self._read("VmHWM")
        return None if peak is None or self._before is None else max(0, peak - self._before)

    @staticmethod
    def _read(key: str) -> int | None:
        with contextlib.suppress(OSError):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith(f"{key}:"):
                    return int(line.split()[1]) * 1024
        return None


def _environment(clips: Tensor) -> MeasuredOn:
    device = clips.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    return MeasuredOn(
        device=str(device),
        device_name=name,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        cuda=torch.version.cuda,
        dtype=str(clips.dtype).removeprefix("torch."),
    )

"""Measured times and memory: raw samples kept, the model left as it was found."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from workloads.measure import MeasuredOn, Measurement, measure, measure_model
from workloads.spec import ModelSpec

HERE = MeasuredOn(device="cpu", device_name="test", threads=1, torch="2", cuda=None, dtype="float32")


class Sleeper(nn.Module):
    """Takes a known time; counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(3)
        self.head = nn.Linear(3, 2)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        time.sleep(0.01)
        out: Tensor = self.head(self.norm(x).mean((2, 3, 4)))
        return out


def test_samples_are_raw_and_warm_up_is_not_among_them() -> None:
    model = Sleeper()
    taken = measure(model, torch.rand(2, 3, 2, 4, 4), warmup=2, samples=5)
    assert model.calls == 7
    assert len(taken.latency_ms) == 5
    assert min(taken.latency_ms) >= 10
    assert min(taken.latency_ms) <= taken.p50_ms <= taken.p95_ms <= max(taken.latency_ms)
    assert taken.clips_per_second == pytest.approx(2000 * 5 / sum(taken.latency_ms))
    assert (taken.step, taken.batch, taken.warmup) == ("forward", 2, 2)


def test_percentiles_interpolate_between_samples() -> None:
    times = tuple(float(ms) for ms in range(1, 102))
    taken = Measurement(step="forward", batch=1, warmup=0, latency_ms=times, peak_memory_bytes=None, measured_on=HERE)
    assert (taken.p50_ms, taken.p95_ms) == (51.0, 96.0)
    assert taken.model_copy(update={"latency_ms": (3.0,)}).p95_ms == 3.0


@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_left_as_it_was_found(training: bool) -> None:
    model = Sleeper().train()
    model.head.weight.grad = torch.ones(2, 3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    threads = torch.get_num_threads()
    taken = measure(model, torch.rand(2, 3, 2, 4, 4), training=training, warmup=1, samples=2, threads=1)
    assert taken.measured_on.threads == 1
    assert torch.get_num_threads() == threads
    assert model.training
    assert torch.equal(model.head.weight.grad, torch.ones(2, 3))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert taken.step == ("training" if training else "forward")


def test_peak_memory_sees_a_large_activation() -> None:
    class Large(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ones(2**26).sum() + x  # 256 MiB

    taken = measure(Large(), torch.rand(1, 1, 1, 2, 2), warmup=0, samples=1)
    if taken.peak_memory_bytes is None:
        pytest.skip("this system does not tell the peak of resident memory")
    assert 2**27 < taken.peak_memory_bytes < 2**30


def test_a_spec_is_built_and_measured() -> None:
    spec = ModelSpec.model_validate(
        {
            "backbone": {"name": "resnet_tiny"},
            "block": {"name": "nl"},
            "insertion": {"res3": [0]},
        }
    )
    taken = measure_model(spec, batch=3, warmup=1, samples=3, training=True)
    assert taken.batch == 3
    assert taken.measured_on.dtype == "float32"
    assert (
        Measurement.model_validate_json(taken.model_dump_json(exclude={"p50_ms", "p95_ms", "clips_per_second"}))
        == taken
    )


@pytest.mark.parametrize(("samples", "warmup"), [(0, 1), (1, -1)])
def test_nothing_to_measure_is_an_error(samples: int, warmup: int) -> None:
    with pytest.raises(ValueError, match="samples >= 1 and warmup >= 0"):
        measure(Sleeper(), torch.rand(1, 3, 1, 2, 2), samples=samples, warmup=warmup)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_events_and_memory() -> None:
    model, clips = nn.Conv3d(3, 64, 3, padding=1).cuda(), torch.rand(2, 3, 8, 112, 112, device="cuda")
    taken = measure(model, clips, warmup=2, samples=5)
    assert taken.measured_on.device.startswith("cuda")
    assert min(taken.latency_ms) > 0
    assert taken.peak_memory_bytes is not None
    assert taken.peak_memory_bytes > 2 * 64 * 8 * 112 * 112 * 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "tpu"}, "'tpu' cannot be measured here: use one of cpu"),
        ({"device": "meta"}, "'meta' cannot be measured here"),
        ({"device": "cuda:99"}, "'cuda:99' cannot be measured here"),
        ({"batch": 0}, "at least 1 clip, given 0"),
    ],
)
def test_what_cannot_be_measured_is_said(changes: dict[str, Any], message: str) -> None:
    spec = ModelSpec.model_validate({"backbone": {"name": "resnet_tiny"}, "block": {"name": "none"}})
    with pytest.raises(ValueError, match=message):
        measure_model(spec, samples=1, warmup=0, **changes)

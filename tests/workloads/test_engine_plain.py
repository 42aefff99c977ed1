"""One step of the plain engine against what it should be, written out: clipping, averaging, accumulation, scaling."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from workloads.engine_plain import PlainEngine
from workloads.recipes import Recipe

CPU = torch.device("cpu")
CLIPS, INPUTS, CLASSES = 11, 5, 3


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(INPUTS, CLASSES).double()


def engine(model: nn.Module, **recipe) -> PlainEngine:
    values = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "lr": 0.5, "schedule": "constant", **recipe}
    return PlainEngine(model, model, Recipe.model_validate(values), CPU)


def data():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(CLIPS, INPUTS, generator=generator, dtype=torch.float64)
    return inputs, torch.arange(CLIPS) % CLASSES


def step(running: PlainEngine, parts: list[int], factor: float = 1.0) -> None:
    inputs, labels = data()
    batches = list(zip(inputs.split(parts), labels.split(parts), strict=True))
    for number, (some, wanted) in enumerate(batches, 1):
        loss = cross_entropy(running.forward(some), wanted, reduction="sum")
        running.backward(loss / CLIPS, last=number == len(batches))
    running.step(factor)


def moved(model: nn.Module) -> torch.Tensor:
    before = torch.cat([value.flatten() for value in linear().state_dict().values()])
    return torch.cat([value.flatten() for value in model.state_dict().values()]) - before


@pytest.mark.parametrize("parts", [[11], [6, 5], [4, 4, 3], [1] * 11])
def test_accumulated_gradients_are_those_of_the_whole_batch(parts):
    """Also where the micro-batches are not equally large."""
    model, reference = linear(), linear()
    step(engine(model), parts)
    inputs, labels = data()
    cross_entropy(reference(inputs), labels).backward()
    gradient = torch.cat([p.grad.flatten() for p in reference.parameters()])
    torch.testing.assert_close(moved(model), -0.5 * gradient, rtol=0, atol=1e-15)


def test_the_schedule_scales_the_step():
    whole, tenth = linear(), linear()
    step(engine(whole), [CLIPS])
    step(engine(tenth), [CLIPS], factor=0.1)
    torch.testing.assert_close(moved(tenth), 0.1 * moved(whole), rtol=0, atol=1e-15)


def test_clipping_bounds_the_gradient_of_the_whole_batch():
    free, clipped, loose = linear(), linear(), linear()
    step(engine(free), [CLIPS])
    step(engine(clipped, clip_grad_norm=0.01), [4, 7])
    step(engine(loose, clip_grad_norm=100.0), [4, 7])
    assert moved(clipped).norm().item() == pytest.approx(0.5 * 0.01, rel=1e-3)  # torch divides by the norm + 1e-6
    torch.testing.assert_close(moved(clipped) / moved(clipped).norm(), moved(free) / moved(free).norm())
    torch.testing.assert_close(moved(loose), moved(free), rtol=0, atol=1e-15)


def test_averaged_weights_follow_their_formula_and_are_those_evaluated():
    model = linear()
    running = engine(model, ema=0.75)
    wanted = {name: value.clone() for name, value in model.state_dict().items()}
    for _ in range(3):
        step(running, [CLIPS])
        wanted = {name: 0.75 * wanted[name] + 0.25 * value for name, value in model.state_dict().items()}
    trained = {name: value.clone() for name, value in model.state_dict().items()}
    with running.evaluating() as network:
        for name, value in network.state_dict().items():
            torch.testing.assert_close(value, wanted[name], rtol=0, atol=1e-14)
    for name, value in model.state_dict().items():
        assert torch.equal(value, trained[name]), "training goes on with its own weights"


def test_batch_statistics_are_averaged_with_the_weights_they_belong_to():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(INPUTS, CLASSES), nn.BatchNorm1d(CLASSES)).double()
    running = engine(model, ema=0.75)
    wanted = {name: value.clone() for name, value in model.state_dict().items()}
    for _ in range(3):
        step(running, [CLIPS])
        wanted = {name: 0.75 * wanted[name] + 0.25 * value for name, value in model.state_dict().items()}
    trained, kept = model[1].running_mean.clone(), running.state()
    with running.evaluating() as network:
        for name in ("1.running_mean", "1.running_var", "1.weight"):
            torch.testing.assert_close(network.state_dict()[name], wanted[name], rtol=0, atol=1e-14)
    assert torch.equal(model[1].running_mean, trained)
    later = nn.Sequential(nn.Linear(INPUTS, CLASSES), nn.BatchNorm1d(CLASSES)).double()
    older = {name: value for name, value in kept.items() if not name.startswith("ema/1.running")}
    for tensors, mean in ((kept, wanted["1.running_mean"]), (older, trained)):
        resumed = engine(later, ema=0.75)
        resumed.load(tensors)
        with resumed.evaluating() as network:
            torch.testing.assert_close(network[1].running_mean, mean, rtol=0, atol=1e-14)

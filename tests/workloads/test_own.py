"""Somebody's own network and training: its places are found, priced and filled; what cannot be is said."""

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from blocks.configs import Shape
from workloads.backbones.model import build_model
from workloads.counting.profile import profile
from workloads.own import OwnConfig, OwnNet, OwnWorkload, Place
from workloads.progress import Finished
from workloads.spec import ModelSpec, RunContext, TrialSpec


class Net(nn.Module):
    """Two places whose maps differ, in an order that attributes do not tell, and a path beside them."""

    def __init__(self, config: OwnConfig) -> None:
        super().__init__()
        self.late = Place()
        self.early = nn.ModuleDict({"first": Place()})
        self.conv1 = nn.Conv3d(config.channels, 8, 3, (1, 2, 2), 1)
        self.conv2 = nn.Conv3d(8, 12, 3, (2, 2, 2), 1)
        self.fc = nn.Linear(20, config.classes)

    def forward(self, x: Tensor) -> Tensor:
        one = self.early["first"](self.conv1(x).relu())
        other = self.late(self.conv2(one).relu())
        return self.fc(torch.cat([one.mean((2, 3, 4)), other.mean((2, 3, 4))], dim=1))


class NetConfig(OwnConfig):
    name: str = "test_own:NetConfig"
    frames: int = 4
    size: int = 20
    classes: int = 5
    network: ClassVar[Any] = Net


class Learns(OwnWorkload):
    name: str = "test_own:Learns"
    classes: ClassVar[int] = 5

    def train(self, model: nn.Module, spec: TrialSpec) -> dict[str, float]:
        return {"top1_percent": 100.0, "train_loss": float(model(torch.randn(2, 3, 4, 20, 20)).detach().std())}


def spec(**insertion: list[int]) -> ModelSpec:
    return ModelSpec(backbone=NetConfig(), block={"name": "nl"}, insertion=insertion)


def test_places_are_stages_with_the_maps_that_pass_them() -> None:
    found = {name: stage.shape for name, stage in NetConfig().stages().items()}
    assert found == {"early.first": Shape(8, 4, 10, 10), "late": Shape(12, 2, 5, 5)}
    assert list(found) == ["early.first", "late"]


def test_a_block_goes_where_the_sweep_says_and_starts_as_nothing() -> None:
    torch.manual_seed(0)
    plain = build_model(spec())
    torch.manual_seed(0)
    blocked = build_model(spec(late=[0])).eval()
    assert isinstance(blocked, OwnNet)
    assert list(blocked.places["late"].long_range) == ["unit"]
    x = torch.randn(2, 3, 4, 20, 20)
    torch.testing.assert_close(blocked(x), plain.eval()(x))
    added = set(blocked.state_dict()) - set(plain.state_dict())
    assert added
    assert all(key.startswith("network.late.long_range.unit.") for key in added)


def test_the_price_is_the_networks_and_the_blocks() -> None:
    plain, blocked = profile(spec()), profile(spec(**{"early.first": [0], "late": [0]}))
    # conv1 8*3*27 at 4x10x10, conv2 12*8*27 at 2x5x5, fc 20*5
    assert plain.executed_macs == 8 * 3 * 27 * 400 + 12 * 8 * 27 * 50 + 100
    assert plain.params == sum(parameter.numel() for parameter in Net(NetConfig()).parameters())
    assert [block.stage for block in blocked.per_block] == ["early.first", "late"]
    assert blocked.executed_macs == plain.executed_macs + sum(block.executed_macs for block in blocked.per_block)
    assert blocked.params == sum(p.numel() for p in build_model(spec(**{"early.first": [0], "late": [0]})).parameters())


def test_a_place_that_does_not_exist_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"stage 'head' does not exist in test_own:NetConfig: use one of early.first, late"
    ):
        build_model(spec(head=[0]))


class Twice(nn.Module):
    def __init__(self, config: OwnConfig) -> None:
        super().__init__()
        self.place, self.fc = Place(), nn.Linear(3, config.classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.place(self.place(x)).mean((2, 3, 4)))


class WrongScores(Twice):
    def forward(self, x: Tensor) -> Tensor:
        return self.place(x).mean((2, 3, 4))


class NoPlace(nn.Module):
    def __init__(self, config: OwnConfig) -> None:
        super().__init__()
        self.fc = nn.Linear(3, config.classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3, 4)))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Twice, r"each Place\(\) is passed once per clip; its places \['place'\], passed \['place', 'place'\]"),
        (NoPlace, r"its places \[\], passed \[\]"),
        (WrongScores, r"one clip gives scores \[1, 3\], \[1, 5\] is needed"),
    ],
)
def test_networks_that_cannot_be_ablated_say_why(network: type[nn.Module], message: str) -> None:
    config = type("Config", (NetConfig,), {"network": network, "__module__": __name__})()
    with pytest.raises(ValueError, match=message):
        config.stages()


def test_a_training_function_gets_the_network_of_the_trial_under_its_seed(tmp_path: Any) -> None:
    def trained(seed: int) -> Finished:
        given = {"recipe": "custom", "protocol": "centre", "workload": Learns(), "seed": seed}
        trial = TrialSpec.model_validate({**spec(late=[0]).model_dump(), "backbone": NetConfig(), **given})
        (event,) = trial.workload.open().run(trial, RunContext(tmp_path, tmp_path))
        assert isinstance(event, Finished)
        return event

    before = torch.random.get_rng_state()
    assert trained(0).metrics == trained(0).metrics
    assert trained(0).metrics["train_loss"] != trained(1).metrics["train_loss"]
    assert torch.equal(torch.random.get_rng_state(), before)

"""Tables of cited networks against what libraries that run them print."""

import pytest

from orchestrator.audit.cited import Cited, Conv, count_rows
from orchestrator.audit.models import Counted, Sum, count
from workloads.counting import profile
from workloads.spec import ModelSpec

# Input channels, width and side of the map in front of the units that stride.
STRIDING = ((256, 128, 56), (512, 256, 28), (1024, 512, 14))

# Parameters as torchvision documents them (Kinetics weights: 400 classes), and of the common ports of I3D and C3D.
PARAMETERS = {
    ("mobilenet_v2", 1000): 3_504_872,
    ("densenet201", 1000): 20_013_928,
    ("resnet3d18", 400): 33_371_472,
    ("i3d", 400): 12_697_264,
}


@pytest.mark.parametrize(("network", "classes"), list(PARAMETERS))
def test_parameters_are_those_of_the_libraries(network: str, classes: int) -> None:
    found = count_rows(Cited.model_validate({"network": network, "classes": classes}))
    assert found.params == PARAMETERS[network, classes]


@pytest.mark.parametrize(
    ("network", "classes", "giga"),
    [("mobilenet_v2", 1000, 0.301), ("densenet201", 1000, 4.291), ("resnet3d18", 400, 40.697)],
)
def test_multiply_accumulates_are_those_of_the_libraries(network: str, classes: int, giga: float) -> None:
    found = count_rows(Cited.model_validate({"network": network, "classes": classes}))
    assert found.macs / 1e9 == pytest.approx(giga, abs=0.0006)


def test_c3d_by_hand() -> None:
    convolutions = 27 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 256 + 256 * 512 + 3 * 512 * 512)
    biases = 64 + 128 + 2 * 256 + 4 * 512
    linear = 8193 * 4096 + 4097 * 4096 + 4097 * 200
    assert count_rows(Cited(network="c3d", classes=200)).params == convolutions + biases + linear


def test_gather_excite_and_srm_add_their_kernels_and_norms_to_resnet50() -> None:
    units = ((3, 256, 56), (4, 512, 28), (6, 1024, 14), (3, 2048, 7))
    gathered = sum(count * channels * (side * side + 2) for count, channels, side in units)
    weighted = sum(count * channels * (2 + 2) for count, channels, _ in units)
    resnet50 = 25_557_032
    assert count_rows(Cited(network="ge_resnet50")).params == resnet50 + gathered
    assert count_rows(Cited(network="srm_resnet50")).params == resnet50 + weighted


def test_streams_add_up_and_norms_can_be_left_out() -> None:
    colour, flow = (count_rows(Cited(network="i3d", streams=(channels,))) for channels in (3, 2))
    both = count_rows(Cited(network="i3d", streams=(3, 2)))
    assert both.params == colour.params + flow.params
    assert both.macs == colour.macs + flow.macs
    assert colour.params - flow.params == 64 * 7**3
    without = count_rows(Cited(network="mobilenet_v2", norms=False))
    assert without.macs == count_rows(Cited(network="mobilenet_v2")).macs
    assert without.params == 3_504_872 - 34_112


def test_every_layer_takes_what_the_one_before_gives_in_res2net() -> None:
    wide = [row for row in Cited(network="res2net50").rows() if isinstance(row, Conv) and row.kernel == (3, 3)]
    assert len(wide) == 7 * 16
    assert {row.cin for row in wide} == {14, 28, 56, 112}


def test_striding_on_the_first_1x1_saves_what_those_convolutions_see_less() -> None:
    v1 = Cited(network="c2d_resnet50_v1")
    later = profile(
        ModelSpec.model_validate(
            {
                "backbone": {
                    "name": "c2d_resnet50",
                    "frames": 32,
                    "classes": 1000,
                    "temporal_strides": [2, 4, 1],
                },
                "block": {"name": "none"},
            }
        )
    )
    found = count_rows(v1)
    saved = sum(4 * cin * width * (side**2 - (side // 2) ** 2) for cin, width, side in STRIDING)
    assert found.params == later.params
    assert later.executed_macs - found.macs == saved


def test_sums_add_and_take_away() -> None:
    models: dict[str, Counted] = {
        "plain": Cited(network="mobilenet_v2"),
        "bare": Cited(network="mobilenet_v2", norms=False),
        "norms": Sum(plus=("plain",), less=("bare",)),
        "twice": Sum(plus=("plain", "norms")),
    }
    assert count("norms", models).params_m == pytest.approx(0.034112)
    assert count("twice", models).params_m == pytest.approx(3.504872 + 0.034112)
    assert count("norms", models).executed == 0

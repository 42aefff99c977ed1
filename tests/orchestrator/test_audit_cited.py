"""Tables of cited networks against what libraries that run them print."""

from typing import Any, get_args

import pytest
import torch
from torch import nn

from orchestrator.audit.cited import TABLES, Cited, count_rows
from orchestrator.audit.layers import Conv
from orchestrator.audit.models import Counted, Sum, count
from orchestrator.audit.octave_networks import octave
from orchestrator.audit.video_networks import INCEPTION
from workloads.backbones.model import build_model
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
    ("s3d", 400): 8_320_048,
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
    without = count_rows(Cited(network="mobilenet_v2", norms="none"))
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
        "bare": Cited(network="mobilenet_v2", norms="none"),
        "norms": Sum(plus=("plain",), less=("bare",)),
        "twice": Sum(plus=("plain", "norms")),
    }
    assert count("norms", models).params_m == pytest.approx(0.034112)
    assert count("twice", models).params_m == pytest.approx(3.504872 + 0.034112)
    assert count("norms", models).executed == 0


def backbone(**fields: Any) -> ModelSpec:
    return ModelSpec.model_validate({"backbone": fields, "block": {"name": "none"}})


def test_every_network_that_can_be_named_has_a_table() -> None:
    assert set(TABLES) == set(get_args(Cited.model_fields["network"].annotation))


def test_the_flat_mfnet_is_our_mfnet_with_kernels_of_one_frame() -> None:
    with torch.device("meta"):
        network = build_model(backbone(name="mfnet", classes=1000))
    deep = sum(
        module.weight.numel() * (module.kernel_size[0] - 1) // module.kernel_size[0]
        for module in network.modules()
        if isinstance(module, nn.Conv3d)
    )
    flat = count_rows(Cited(network="mfnet_2d"))
    assert flat.params == sum(parameter.numel() for parameter in network.parameters()) - deep
    assert flat.macs / 1e6 == pytest.approx(861, rel=0.002)  # as its authors print it


def test_running_statistics_are_as_many_as_scales_and_shifts() -> None:
    none, learned, stored = (
        count_rows(Cited.model_validate({"network": "mfnet_2d", "norms": norms})).params
        for norms in ("none", "learned", "stored")
    )
    assert stored - learned == learned - none > 0


def test_a_narrow_third_branch_saves_26_of_27_weights_of_its_large_kernels() -> None:
    modules = [(size, widths) for size, of_size in INCEPTION for widths in of_size]
    saved = [(frames * side * side, 26 * given * made) for (frames, side, _), (*_, given, made, _) in modules]
    wide, narrow = (count_rows(Cited.model_validate({"network": "i3d", "third": third})) for third in (3, 1))
    assert wide.params - narrow.params == sum(weights for _, weights in saved)
    assert wide.macs - narrow.macs == sum(positions * weights for positions, weights in saved)


def test_what_is_left_whole_in_s3d_has_the_kernels_of_i3d() -> None:
    split, whole = (count_rows(Cited(network="s3d", separable=modules)) for modules in (9, 8))
    in_space_and_time = 9 * 192 * 384 + 3 * 384**2 + 9 * 48 * 128 + 3 * 128**2
    norms = 2 * (384 + 128)  # one each less
    assert whole.params - split.params == 27 * (192 * 384 + 48 * 128) - in_space_and_time - norms


def test_a_flat_stem_saves_the_temporal_kernels_of_its_two_large_convolutions() -> None:
    flat, deep = (count_rows(Cited(network="s3d", norms="none", flat_stem=flat)) for flat in (True, False))
    saved = [(32 * 112**2, 7 * 64 * 64), (32 * 56**2, 3 * 192 * 192)]
    assert deep.params - flat.params == sum(weights for _, weights in saved)
    assert deep.macs - flat.macs == sum(positions * weights for positions, weights in saved)
    i3d, i3d_flat = (count_rows(Cited(network="i3d", norms="none", flat_stem=flat)).params for flat in (False, True))
    assert i3d - i3d_flat == 6 * 49 * 3 * 64 + 2 * 9 * 64 * 192


@pytest.mark.parametrize("low", [0.125, 0.25, 0.5, 0.75])
def test_an_octave_convolution_costs_what_its_paper_derives(low: float) -> None:
    rows = [row for row in octave((64, 128), (low, low), (3, 3), (28, 28)) if isinstance(row, Conv)]
    macs = sum(row.cin * row.cout * 9 * row.out[0] * row.out[1] for row in rows)
    assert macs == (1 - 0.75 * low * (2 - low)) * 64 * 128 * 9 * 28 * 28
    assert sum(row.cin * row.cout for row in rows) == 64 * 128


def test_octaves_of_nothing_are_the_plain_networks() -> None:
    plain = profile(backbone(name="resnet50"))
    assert count_rows(Cited(network="oct_resnet50"))[:2] == (plain.params, plain.executed_macs)
    assert count_rows(Cited(network="oct_resnet50", low=0.5)).params == plain.params
    i3d = profile(backbone(name="i3d_resnet50", stem_pool="unpadded"))
    assert count_rows(Cited(network="oct_i3d_resnet50", classes=400))[:2] == (i3d.params, i3d.executed_macs)


def test_an_attention_network_by_hand() -> None:
    def units(channels: int) -> int:  # bottlenecks on equal channels, behind a norm each
        inner = channels // 4
        return 2 * channels * inner + 9 * inner**2 + 2 * channels + 4 * inner

    def first(cin: int, cout: int) -> int:
        inner = cout // 4
        return cin * inner + 9 * inner**2 + inner * cout + cin * cout + 2 * cin + 4 * inner

    # Units in the three attention modules, whose masks go down three times, twice, once; two 1x1 in each.
    modules = sum(count * units(c) + 2 * c**2 + 4 * c for count, c in ((12, 256), (9, 512), (6, 1024)))
    chain = first(64, 256) + first(256, 512) + first(512, 1024) + first(1024, 2048) + 2 * units(2048)
    stem_and_head = 3 * 49 * 64 + 2 * 64 + 2 * 2048 + 2049 * 1000
    assert count_rows(Cited(network="attention56")).params == modules + chain + stem_and_head

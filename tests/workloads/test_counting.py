"""Counts: three opinions, whole models against the sum of their parts, the published rules, and the cache."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from blocks.configs import Shape
from blocks.registry import closed_form, parse_config
from workloads.backbones.model import build_model
from workloads.counting import RULES, UnknownOperation, executed, ops, pieces, profile, three_ways, tracing
from workloads.counting import cache as disk
from workloads.counting.rules import module_operations, with_products
from workloads.counting.shapes import ShapesOnly
from workloads.spec import ModelSpec

WHOLE_MODELS = [
    ({"name": "resnet50", "frames": 3, "size": 64}, {"name": "nl"}, {"res3": [0, 2], "res4": [1], "res4/branch": [2]}),
    ({"name": "resnet18", "frames": 4, "size": 64}, {"name": "se"}, {"res2/branch": "all", "res3/conv1": [1]}),
    ({"name": "c2d_resnet50", "frames": 8, "size": 112}, {"name": "rnl"}, {"res3": [1, 3], "head": [0]}),
    ({"name": "i3d_resnet50", "frames": 8, "size": 112}, {"name": "hgnl"}, {"head": [0], "res5": [2]}),
    ({"name": "tsm_resnet50", "frames": 8, "size": 64}, {"name": "gc"}, {"res3": [0, 2], "res4": [0, 2, 4]}),
    ({"name": "mfnet", "frames": 8, "size": 112}, {"name": "cgnl"}, {"res4": [1], "res3": [0]}),
    ({"name": "stnet"}, {"name": "none"}, {}),
    ({"name": "se_resnext101_32x4d", "size": 64}, {"name": "hgnl"}, {"head": [0]}),
    ({"name": "resnet50", "frames": 2, "size": 64}, {"name": "cgd"}, {"res3/conv1": "all", "res4/conv1": "all"}),
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGRANGE_CACHE", str(tmp_path))


def spec_of(backbone: dict[str, Any], block: dict[str, Any], insertion: dict[str, Any]) -> ModelSpec:
    return ModelSpec.model_validate({"backbone": backbone, "block": block, "insertion": insertion})


def by_definition(spec: ModelSpec) -> ModelSpec:
    return spec.model_copy(update={"block": pieces.by_definition(spec.block)})


@pytest.mark.parametrize(("backbone", "block", "insertion"), WHOLE_MODELS)
def test_a_whole_model_is_the_sum_of_its_parts(
    backbone: dict[str, Any], block: dict[str, Any], insertion: dict[str, Any]
) -> None:
    spec = spec_of(backbone, block, insertion)
    priced = profile(spec)
    with torch.device("meta"), ShapesOnly():
        model = build_model(by_definition(spec)).eval()
        clip = torch.empty((1, 3, spec.backbone.frames, spec.backbone.size, spec.backbone.size))
    whole = executed.count({"": [model]}, clip, "whole model")[""]
    assert priced.executed_macs == whole.macs
    assert priced.params == sum(parameter.numel() for parameter in model.parameters())
    assert priced.peak_activation_bytes == whole.peak_bytes
    rules = with_products(whole.rules, whole.product_macs, whole.product_outputs)
    assert priced.rules == pytest.approx({rule: operations / 1e9 for rule, operations in rules.items()}, rel=1e-12)
    assert sum(row.executed_macs for row in priced.per_stage) == whole.macs


def test_a_block_costs_what_its_row_says() -> None:
    with_block = profile(spec_of({"name": "resnet50", "frames": 4, "size": 64}, {"name": "nl"}, {"res3": [0, 2]}))
    without = profile(spec_of({"name": "resnet50", "frames": 4, "size": 64}, {"name": "none"}, {"res3": [0, 2]}))
    assert [(row.stage, row.unit, row.place, row.block) for row in with_block.per_block] == [
        ("res3", 0, "unit", "nl"),
        ("res3", 2, "unit", "nl"),
    ]
    assert without.per_block == ()
    assert with_block.executed_macs - without.executed_macs == sum(row.executed_macs for row in with_block.per_block)
    assert with_block.params - without.params == sum(row.params for row in with_block.per_block)
    # by hand: theta, phi, g, W_z are 512 x 256 at 4*8*8 places; two N x N x 256 products
    n = 4 * 8 * 8
    assert with_block.per_block[0].executed_macs == 4 * 512 * 256 * n + 2 * n * n * 256
    assert with_block.per_block[0].product_macs == 2 * n * n * 256


def test_resnet50_costs_what_everybody_knows() -> None:
    image = profile(spec_of({"name": "resnet50", "frames": 1}, {"name": "none"}, {}))
    assert image.params == 25_557_032
    assert image.executed_macs == 4_089_184_256


def test_a_profile_is_json_and_reports_the_rules_asked_for() -> None:
    priced = profile(spec_of({"name": "resnet18", "size": 64}, {"name": "none"}, {}), rules=("thop-2004",))
    assert list(priced.rules) == ["thop-2004"]
    assert json.loads(priced.model_dump_json())["executed_macs"] == priced.executed_macs


def test_a_faster_implementation_costs_the_same() -> None:
    backbone, insertion = {"name": "resnet50", "frames": 4, "size": 64}, {"res3": [1]}
    block = {"name": "nl", "affinity": "dot_product"}
    fast = profile(spec_of(backbone, block, insertion))
    assert fast == profile(spec_of(backbone, {**block, "implementation": "reference"}, insertion))


def test_every_place_where_a_block_does_not_fit_is_named() -> None:
    spec = spec_of({"name": "resnet50", "size": 64}, {"name": "nl", "reduction": 3}, {"res3": [0, 2]})
    with pytest.raises(ValueError, match=r"res3\.0 .*res3\.2 "):
        profile(spec)


# --- operations ------------------------------------------------------------------------------------------------------


class Calls(nn.Module):
    """Run one function; holds one weight so that products with weights can be told apart."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(6, 6))
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.function(x, self.weight)
        return out


OPERATIONS = {
    # name: (function of x [2, 3, 4, 6] and a weight [6, 6], MACs by hand)
    "matmul": (lambda x, w: x @ x.mT, 2 * 3 * 4 * 4 * 6),
    "broadcast": (lambda x, w: x @ w, 2 * 3 * 4 * 6 * 6),
    "broadcast_left": (lambda x, w: x[0, 0, :, :4] @ x[:, :, :, :5].transpose(0, 1), 3 * 2 * 4 * 4 * 5),
    "matrix_vector": (lambda x, w: x[0, 0] @ x[0, 0, 0], 4 * 6),
    "dot": (lambda x, w: torch.dot(x[0, 0, 0], x[0, 0, 1]), 6),
    "linear": (lambda x, w: nn.functional.linear(x, w), 2 * 3 * 4 * 6 * 6),
    "baddbmm": (lambda x, w: torch.baddbmm(x[0, :, :, :4], x[0], x[0].mT), 3 * 4 * 4 * 6),
    "addmm": (lambda x, w: torch.addmm(w[:4], x[0, 0], w), 4 * 6 * 6),
    "addmv": (lambda x, w: torch.addmv(w[0, :4], x[0, 0], w[0]), 4 * 6),
    "einsum": (lambda x, w: torch.einsum("bgij,bgkj->bgik", x, x), 2 * 3 * 4 * 4 * 6),
    "einsum_three": (lambda x, w: torch.einsum("bgij,jk,bgik->bgi", x, w, x), 2 * 3 * 4 * 6 * 6 + 2 * 3 * 4 * 6),
    "attention": (lambda x, w: nn.functional.scaled_dot_product_attention(x, x, x), 2 * 3 * 4 * 4 * 12),
    "conv": (lambda x, w: nn.functional.conv2d(x, x[:, :, :2, :3]), 2 * 2 * 3 * 4 * 18),
    "conv_grouped": (lambda x, w: nn.functional.conv1d(x[:, :, 0], x[0, :, :1, :2], groups=3), 2 * 3 * 5 * 2),
    "conv_transposed": (lambda x, w: nn.functional.conv_transpose2d(x, x[0, :, None, :2, :2]), 2 * 3 * 4 * 6 * 4),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_both_counters_agree_with_a_count_by_hand(name: str) -> None:
    function, macs = OPERATIONS[name]
    module = Calls(function)
    assert tracing.traced_macs(module, torch.randn(2, 3, 4, 6), name) == macs
    meta = Calls(function).to("meta")
    assert executed.count({"": [meta]}, torch.empty(2, 3, 4, 6, device="meta"), name)[""].macs == macs


def test_products_with_weights_are_not_products_of_activations() -> None:
    both = Calls(lambda x, w: (x @ w) @ x.mT).to("meta")
    tally = executed.count({"": [both]}, torch.empty(2, 3, 4, 6, device="meta"), "test")[""]
    assert (tally.product_macs, tally.product_outputs) == (2 * 3 * 4 * 4 * 6, 2 * 3 * 4 * 4)


@pytest.mark.parametrize("function", [lambda x, w: torch.fft.fft(x).real, lambda x, w: torch.cdist(x, x)])
def test_an_unknown_operation_is_an_error_that_names_it(function: Any) -> None:
    with pytest.raises(UnknownOperation, match=r"aten\.\w*(fft|cdist)"):
        executed.count({"": [Calls(function).to("meta")]}, torch.empty(2, 3, 4, 6, device="meta"), "test")
    with pytest.raises(UnknownOperation, match=r"aten::\w*(fft|cdist)"):
        tracing.traced_macs(Calls(function), torch.randn(2, 3, 4, 6), "test")


@pytest.mark.parametrize("name", ["mm", "bmm", "linear", "matmul", "einsum", "conv3d", "lstm", "_fft_r2c", "bilinear"])
def test_what_multiplies_is_never_free(name: str) -> None:
    assert not ops.is_free(name)


def test_memory_follows_births_and_deaths() -> None:
    def three(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        y = x + 1  # x, y alive
        z = y * 2  # x, y, z alive: the peak
        del y
        return z.relu_()

    x = torch.empty(2, 3, 4, 6, device="meta")
    assert executed.count({"": [Calls(three).to("meta")]}, x, "test")[""].peak_bytes == 3 * x.nbytes


# --- disagreement ----------------------------------------------------------------------------------------------------


def test_a_wrong_closed_form_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    config, shape = pieces.by_definition(parse_config({"name": "nl"})), Shape(16, 2, 7, 7)
    right = closed_form(config, shape)
    monkeypatch.setattr(three_ways, "closed_form", lambda *_: type(right)(right.macs + 1, right.params, 1))
    with pytest.raises(ValueError, match="disagree on block 'nl'"):
        three_ways.count_block(config, shape)


def test_a_counter_that_misses_an_operation_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tracing.HANDLERS, "aten::matmul", lambda inputs, outputs: 0)
    with pytest.raises(ValueError, match=r"disagree on block 'nl'.*fvcore"):
        three_ways.count_block(pieces.by_definition(parse_config({"name": "nl"})), Shape(16, 2, 7, 7))


def test_big_blocks_are_traced_on_a_map_they_fit() -> None:
    config = parse_config({"name": "bat", "s": 7, "ts": 4})
    small = three_ways._smaller(config, Shape(512, 8, 112, 112))
    assert not config.problems(small)
    assert small.height < 28


# --- rules -----------------------------------------------------------------------------------------------------------


def test_the_rules_charge_what_their_table_says() -> None:
    conv = module_operations(nn.Conv3d(4, 6, (1, 3, 3), groups=2), (1, 4, 2, 9, 9), (1, 6, 2, 7, 7))
    outputs, k = 6 * 2 * 7 * 7, 2 * 9
    assert conv == {**dict.fromkeys(RULES, outputs * (k + 1)), "hgnl": outputs * 2 * k}
    linear = module_operations(nn.Linear(5, 7), (1, 5), (1, 7))
    assert linear == {"thop-2001": 70, "thop-1909": 63, "thop-1909+matmul": 63, "thop-2004": 35, "hgnl": 70}
    assert module_operations(nn.BatchNorm2d(3), (1, 3, 2, 2), (1, 3, 2, 2))["thop-1909"] == 4 * 12
    pool = module_operations(nn.AdaptiveAvgPool2d(1), (1, 3, 5, 7), (1, 3, 1, 1))
    assert pool == {**dict.fromkeys(RULES, 3 * 36), "thop-2004": 3, "hgnl": 0}


def test_products_cost_something_in_two_rules_only() -> None:
    charged = with_products(dict.fromkeys(RULES, 1), macs=100, outputs=10)
    assert charged == {**dict.fromkeys(RULES, 1), "thop-1909+matmul": 201, "hgnl": 191}


# --- cache -----------------------------------------------------------------------------------------------------------


def test_a_count_is_made_once_per_code(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def compute() -> list[int]:
        calls.append(1)
        return calls

    assert disk.cached({"a": 1}, Calls, compute) == [1]
    assert disk.cached({"a": 1}, Calls, compute) == [1]
    assert disk.cached({"a": 2}, Calls, compute) == [1, 1]
    monkeypatch.setattr(disk, "_code", lambda owner: "edited")
    assert disk.cached({"a": 1}, Calls, compute) == [1, 1, 1]


def test_a_broken_or_unwritable_cache_only_costs_time(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    disk.cached({"a": 1}, Calls, lambda: 1)
    (file,) = disk.folder().glob("*.json")
    file.write_text("{")
    assert disk.cached({"a": 1}, Calls, lambda: 2) == 2
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LONGRANGE_CACHE", str(tmp_path / "file"))
    assert disk.cached({"a": 1}, Calls, lambda: 3) == 3


@pytest.mark.parametrize("before", [True, False])
def test_garbage_is_left_while_counting_and_collected_as_before(before: bool) -> None:
    def counting() -> bool:
        return gc.isenabled()

    def failing() -> None:
        raise ValueError("does not fit")

    was = gc.isenabled()
    try:
        gc.enable() if before else gc.disable()
        assert disk.cached({"a": "gc"}, Calls, counting) is False
        assert gc.isenabled() is before
        with pytest.raises(ValueError, match="does not fit"):
            disk.cached({"a": "bad"}, Calls, failing)
        assert gc.isenabled() is before
    finally:
        gc.enable() if was else gc.disable()


def test_a_cached_profile_needs_no_torch() -> None:
    code = (
        "import sys; from workloads.spec import ModelSpec; from workloads.counting import profile; "
        "spec = ModelSpec.model_validate({'backbone': {'name': 'resnet_tiny'}, 'block': {'name': 'se'}, "
        "'insertion': {'res3': [0]}}); print(profile(spec).params, 'torch' in sys.modules)"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    first, second = (run.stdout.split() for run in runs)
    assert first[0] == second[0]
    assert (first[1], second[1]) == ("True", "False")

"""Every built-in block keeps the contract, with every choice it has; and the contract notices what is broken."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from blocks import block_type, config_type, registry, signatures
from blocks.base import Block, Cost
from blocks.cases import Case
from blocks.configs import BlockConfig, NonLocalConfig, SEConfig, Shape
from blocks.contract import check_block, check_case, report
from blocks.registry import BUILTIN
from blocks.variants import fitting_shape, resized, variants

# Compiled and distributed runs start here, in a process of their own and without the shape checks.
PROCESSES = Path(__file__).parent / "processes"

CASES = [
    Case(block_type(name), config, shape)
    for name in BUILTIN
    for config in variants(config_type(name)())
    if (shape := fitting_shape(config))
]


def spelled(case):
    default = config_type(case.config.name)()
    changed = {key: value for key, value in vars(case.config).items() if value != getattr(default, key)}
    return f"{case.config.name}-{changed or 'default'}"


every_case = pytest.mark.parametrize("case", CASES, ids=spelled)


@every_case
def test_contract(case):
    assert [str(finding) for finding in check_case(case)] == []


RESIZED = [
    Case(block_type(name), config, shape)
    for name in BUILTIN
    for config in resized(config_type(name)())
    if (shape := fitting_shape(config))
]


@pytest.mark.slow  # together they are
@pytest.mark.parametrize("case", RESIZED, ids=spelled)
def test_contract_with_other_numbers(case):
    assert [str(finding) for finding in check_case(case)] == []


def test_every_choice_of_every_block_fits_some_map():
    for name in BUILTIN:
        for config in variants(config_type(name)()):
            assert fitting_shape(config), config


@every_case
def test_channels_last_input_changes_nothing(case):
    block, x = case.build().eval(), case.clips()
    expected = block(x)
    torch.testing.assert_close(block(x.to(memory_format=torch.channels_last_3d)), expected, rtol=1e-9, atol=1e-9)


@every_case
def test_activation_checkpointing_changes_nothing(case):
    gradients = []
    for run in (lambda block, x: block(x), lambda block, x: checkpoint(block, x, use_reentrant=False)):
        block, x = case.build(), case.clips().requires_grad_()
        run(block, x).square().sum().backward()
        gradients.append([x.grad, *(p.grad for p in block.parameters() if p.requires_grad)])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain)


@pytest.mark.slow
@pytest.mark.parametrize(
    "script", [pytest.param("compiled.py", marks=pytest.mark.slow(seconds=200)), "exported.py", "distributed.py"]
)
def test_in_a_process_of_its_own(script):
    environment = {**os.environ, "LONGRANGE_CHECK_SHAPES": "0", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, PROCESSES / script], env=environment, capture_output=True, text=True, check=False, timeout=580
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


class BrokenConfig(BlockConfig):
    name = "broken"


class Broken(Block[BrokenConfig]):
    """A block that keeps the contract; each test below breaks one promise."""

    Config = BrokenConfig

    def __init__(self, config, shape):
        super().__init__(config, shape)
        self.conv = nn.Conv3d(shape.channels, shape.channels, 1)

    def forward(self, x):
        return self.conv(x)

    @classmethod
    def closed_form(cls, config, shape):
        c, n = shape.channels, shape.positions
        return Cost(macs=c * c * n, params=c * c + c, peak_activation_elements=2 * c * n)


def found(kind):
    return {finding.check for finding in check_block(kind)}


def test_a_sound_block_passes():
    assert check_block(Broken) == []


def test_a_dead_branch_is_noticed():
    class Dead(Broken):
        identity_at_start = True

        def __init__(self, config, shape):
            super().__init__(config, shape)
            self.norm = nn.BatchNorm3d(shape.channels)
            nn.init.zeros_(self.norm.weight)

        def forward(self, x):
            return x + torch.relu(self.norm(self.conv(x)))

    assert found(Dead) == {"trains_from_the_start", "cost_is_what_runs"}


def test_a_zero_start_that_wakes_up_is_no_dead_branch():
    class Sleeping(Broken):
        identity_at_start = True

        def __init__(self, config, shape):
            super().__init__(config, shape)
            self.scale = nn.Parameter(torch.zeros(()))

        def forward(self, x):
            return x + self.scale * self.conv(x)

    assert "trains_from_the_start" not in found(Sleeping)


@pytest.mark.parametrize(
    ("check", "forward"),
    [
        ("shape_and_dtype", lambda self, x: self.conv(x).mT),
        ("shape_and_dtype", lambda self, x: self.conv(x).float()),
        ("shape_and_dtype", lambda self, x: self.conv(x) / 0),
        ("trains_from_the_start", lambda self, x: x),
        ("clips_are_independent_in_eval", lambda self, x: self.conv(x) - x.mean(0)),
        ("deterministic", lambda self, x: self.conv(x) + torch.rand(())),
        ("leaves_its_input_alone", lambda self, x: self.conv(x + 0 * x.detach().mul_(0.5))),
        ("half_precision_is_near", lambda self, x: self.conv(x) * 1e6 / 1e6),
        ("cost_is_what_runs", lambda self, x: self.conv(self.conv(x))),
        ("problems_are_raised", lambda self, x: self.conv(x) if x.shape[2] > 1 else [][0]),
    ],
)
def test_each_broken_promise_is_found(check, forward):
    assert check in found(type("Wrong", (Broken,), {"forward": forward}))


def test_a_batch_norm_that_needs_more_clips_than_the_config_says_is_found():
    class Pooled(Broken):
        def __init__(self, config, shape):
            super().__init__(config, shape)
            self.norm = nn.BatchNorm1d(shape.channels)

        def forward(self, x):
            return self.conv(x) + self.norm(x.mean((2, 3, 4)))[:, :, None, None, None]

    told = [f.message for f in check_block(Pooled) if f.check == "trains_on_the_fewest_clips"]
    assert ["let the config say least_clips = 2" in message for message in told] == [True]
    frugal = type("FrugalConfig", (BrokenConfig,), {"least_clips": 3})
    assert "trains_on_the_fewest_clips" not in found(type("Frugal", (Pooled,), {"Config": frugal}))


def test_what_the_state_dict_leaves_out_is_found():
    class Random(Broken):
        def __init__(self, config, shape):
            super().__init__(config, shape)
            self.random = torch.rand(())

        def forward(self, x):
            return self.conv(x) + self.random

    class Counting(Broken):
        seen = 0

        def forward(self, x):
            self.seen += self.training
            return self.conv(x) + self.seen

    assert "state_survives_a_file" in found(Random)
    assert "state_survives_a_file" in found(Counting)


def test_a_false_identity_is_found():
    assert "identity_at_start" in found(type("False_", (Broken,), {"identity_at_start": True}))


def test_wrong_maps_are_found():
    def flat(self, x, position):
        return x[:, :1, 0]

    def signed(self, x, position):
        return -x[:, :1].abs()

    def squared(self, x, position):
        rows = x[:, 0].flatten(1)
        return (rows[:, :, None] * rows[:, None])[:, :1].abs().reshape(x.shape[0], 1, *x.shape[2:])

    for attention in (flat, signed, squared):
        assert "attention_maps" in found(type("Mapped", (Broken,), {"attention": attention}))


def test_an_implementation_that_differs_is_found():
    class Approximate(block_type("nl")):
        def forward(self, x):
            y = super().forward(x)
            return y * 1.01 if self.config.implementation == "auto" else y

    assert "auto_equals_reference" in {finding.check for finding in check_block(Approximate, [NonLocalConfig()])}


def test_an_exception_in_one_check_does_not_hide_the_others():
    def fail(self, x):
        raise RuntimeError("no forward today")

    findings = check_block(type("Raising", (Broken,), {"forward": fail}))
    assert {"shape_and_dtype", "cost_is_what_runs"} <= {finding.check for finding in findings}
    assert "no forward today" in str(findings[0])


def test_a_block_without_a_config_says_so():
    with pytest.raises(ValueError, match="needs an attribute Config"):
        check_block(type("Bare", (Block,), {}))


def test_a_config_that_fits_no_usual_map_is_a_finding():
    (finding,) = check_block("se", [SEConfig(reduction=11 * 13)])
    assert finding.check == "fits_a_map"
    assert "not divisible by reduction=143" in finding.message


def test_given_shapes_are_used():
    assert check_block("se", shapes=[Shape(32, 2, 3, 5)]) == []


@dataclass(frozen=True, kw_only=True)
class SizedConfig(BlockConfig):
    name = "sized"
    width: int = 8
    kernel: tuple[int, int, int] = (3, 7, 1)
    none: int = 0
    fixed: int = 6
    flag: bool = False
    share: float = 0.5

    def invalid(self):
        odd = all(size % 2 for size in self.kernel)
        return [] if odd and self.fixed == 6 else ["kernel must be odd and fixed 6"]

    def problems(self, shape):
        return [] if self.width <= 8 else ["too wide for every map"]


def test_whole_numbers_vary_where_the_config_allows():
    found = [(c.width, c.kernel, c.none) for c in resized(SizedConfig())]
    assert found == [(4, (3, 7, 1), 0), (8, (1, 3, 1), 0), (8, (7, 15, 3), 0), (8, (3, 7, 1), 1)]


def test_the_report_has_one_line_per_check_and_names_the_configs():
    class Sized(Broken):
        Config = SizedConfig

        def forward(self, x):
            return self.conv(x) * (2 if self.config.flag or self.config.width == 4 else 1) + torch.rand(())

    found = report(Sized)
    lines = found.lines()
    at = lines.index(
        "deterministic: 6 of 6 configs: default; flag=True; width=4; kernel=(1, 3, 1); kernel=(7, 15, 3); none=1"
    )
    assert lines[at + 1] == "    default at C=48 T=3 H=7 W=5: the same input gave different outputs in eval mode"
    assert "cost_is_what_runs: 6 of 6 configs: default; " in "\n".join(lines)
    assert len([line for line in lines if not line.startswith(" ")]) == len(found.broken)


def test_an_ill_conditioned_definition_is_compared_by_what_float32_leaves_of_it():
    """Two evaluations of a map that amplifies rounding differ by far more than a share of the output."""

    class Amplified(Broken):
        Config = type("AmplifiedConfig", (NonLocalConfig,), {"name": "amplified"})
        wrong = 1.0

        def forward(self, x):
            y = self.conv(x)
            large = 1e5 + y if self.config.implementation == "reference" else 1e5 * (1 + y / 1e5)
            return (large - 1e5) * (self.wrong if self.config.implementation == "auto" else 1.0)

    def disagrees(kind):
        return "auto_equals_reference" in {finding.check for finding in check_block(kind, [kind.Config()])}

    assert not disagrees(Amplified)
    assert disagrees(type("Wrong", (Amplified,), {"wrong": 1 + 1e-6}))


def test_small_outputs_are_compared_by_their_own_size():
    class Small(Broken):
        Config = type("SmallConfig", (NonLocalConfig,), {"name": "small"})

        def forward(self, x):
            return self.conv(x) * (1e-8 if self.config.implementation == "reference" else 1.1e-8)

    messages = [f.message for f in check_block(Small, [Small.Config()]) if f.check == "auto_equals_reference"]
    assert any("output" in message for message in messages)


def test_shapes_in_signatures_are_executed():
    class Annotated(Broken):
        def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t w h"]:
            return self.conv(x)

    (finding,) = check_block(Annotated)[:1]
    assert finding.check == "shapes_are_as_annotated"
    assert "return value" in finding.message
    assert "Axes: b=2, c=48, t=3, h=7, w=5" in finding.message


def test_without_beartype_the_report_says_what_was_not_checked(monkeypatch):
    monkeypatch.setattr(signatures, "find_spec", lambda name: None)
    found = report(Broken)
    assert found.findings == []
    assert found.notes == [signatures.MISSING]


def test_a_wrong_peak_names_what_is_alive():
    class Twice(Broken):
        def forward(self, x):
            return self.conv(x) + self.conv(x)

    told = next(finding.message for finding in check_block(Twice) if "peak" in finding.message)
    assert told.endswith("input 1x48x3x7x5 + convolution 1x48x3x7x5 + convolution 1x48x3x7x5 + add 1x48x3x7x5")


def test_a_name_by_which_no_trial_can_be_rebuilt_is_found(monkeypatch):
    monkeypatch.setitem(registry._registered, "unheard_of", Broken)
    told = [finding.message for finding in check_block("unheard_of")]
    assert told == [
        f"block 'unheard_of' is called {Broken.Config.name!r} in its config, which is another block or none: let "
        f"the config's name be 'unheard_of', or make {Broken.Config.name!r} an entry point of its package"
    ]

"""The contract suite: what every block has to keep, checked on small maps without pytest.

`check_block` runs every check on a block, ours or a third party's, and returns what it found; an empty list means that
the block keeps the contract of `blocks.base`. Configs: the block's default and what differs from it in one choice (a
Literal or bool field) or one whole number; maps: sides that are distinct primes, so that transposed axes cannot pass.

    findings = check_block("my_package:MyBlock")
    print("\n".join(report("my_package:MyBlock").lines()))
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from blocks import signatures
from blocks.affinity import as_on_large_maps
from blocks.base import Block
from blocks.cases import BATCH, Case, lively, seed_torch, trainable
from blocks.closeness import DTYPES, gap, largest, too_far
from blocks.configs import BlockConfig, Shape
from blocks.executed import observe
from blocks.findings import Finding, Report
from blocks.registry import BUILTIN, block_names, block_type, config_dict, config_type, misnamed, parse_config
from blocks.variants import fitting_shape, resized, variants

_TRAINING_STEPS = 6
# What autocast may change of the output, as a share of its norm.
_HALF = {torch.bfloat16: 4e-2, torch.float16: 6e-3}


def check_block(
    block: str | type[Block[Any]],
    configs: Sequence[BlockConfig] | None = None,
    shapes: Sequence[Shape] | None = None,
) -> list[Finding]:
    """Run the whole contract suite.

    Args:
        block: a registered name, ``"module:Class"``, or the class.
        configs: what to check; default: the block's default config with its `variants` and `resized`.
        shapes: maps to check each config on; default: `fitting_shape` of each config.

    Returns:
        Everything that is wrong; empty if the block keeps the contract.

    Raises:
        UnknownBlock: the name leads to no block.
    """
    return list(report(block, configs, shapes).findings)


def report(
    block: str | type[Block[Any]],
    configs: Sequence[BlockConfig] | None = None,
    shapes: Sequence[Shape] | None = None,
) -> Report:
    """`check_block`, with what was checked and what could not be."""
    kind = block_type(block) if isinstance(block, str) else block
    default = _config_class(kind)() if configs is None else configs[0]
    tried = [*variants(default), *resized(default)] if configs is None else list(configs)
    findings = [finding for config in tried for finding in _check_config(kind, config, shapes)]
    notes = [] if signatures.available() else [signatures.MISSING]
    if isinstance(block, str) and (wrong := misnamed(block, default)):
        if ":" in block and default.name not in block_names():  # its package may not be installed yet
            notes.append(f"no sweep finds it yet: {wrong}")
        else:
            findings.append(Finding("config_survives_json", default.name, config_dict(default), None, wrong))
    return Report(default, tried, [check.__name__ for check in CHECKS], findings, notes)


def _check_config(kind: type[Block[Any]], config: BlockConfig, shapes: Sequence[Shape] | None) -> list[Finding]:
    found = fitting_shape(config)
    at = list(shapes) if shapes is not None else [found] if found else []
    if not at:
        message = f"problems() accepts none of the usual maps: {'; '.join(config.problems(Shape(64, 4, 7, 5)))}"
        return [Finding("fits_a_map", config.name, config_dict(config), None, message)]
    return [finding for shape in at for finding in check_case(Case(kind, config, shape))]


def check_case(case: Case) -> list[Finding]:
    """Run every check on one case."""
    return [
        Finding(check.__name__, case.config.name, config_dict(case.config), case.shape, message)
        for check in CHECKS
        for message in _messages(check, case)
    ]


def shape_and_dtype(case: Case) -> Iterator[str]:
    """The output has the shape and dtype of the input and is finite, in training and evaluation."""
    for dtype, training in product((torch.float32, torch.float64), (True, False)):
        x = case.clips(dtype=dtype)
        y = case.build(dtype=dtype).train(training)(x)
        if y.shape != x.shape or y.dtype != dtype:
            yield f"expected {tuple(x.shape)} {dtype}, got {tuple(y.shape)} {y.dtype}"
        elif not y.isfinite().all():
            yield f"{dtype} output is not finite (training={training})"


def trains_on_the_fewest_clips(case: Case) -> Iterator[str]:
    """One training step on `least_clips` clips, by which plans decide which batches are large enough."""
    least = case.config.least_clips
    try:
        case.build().train()(case.clips()[:least])
    except ValueError as error:
        how = f"let the config say least_clips = {least + 1}, or normalise otherwise"
        yield f"with least_clips = {least}: {error}; {how}"


def trains_from_the_start(case: Case) -> Iterator[str]:
    """A few steps from the initial weights, every trainable parameter and the input have received a gradient.

    A zero-initialised scale may hold back what lies before it for a step, but not for ever, as it does when a ReLU
    follows a BatchNorm whose gamma and beta are zero. Every second step runs in eval mode, because a bias before a
    BatchNorm has no effect in training.
    """
    block, x = case.build(scramble=False), case.clips().requires_grad_()
    inputs = {"the input": x, **trainable(block)}
    waiting = set(inputs)
    for step in range(_TRAINING_STEPS):
        y = block.train(step % 2 == 0)(x)
        goal = torch.randn(y.shape, generator=torch.Generator().manual_seed(step), dtype=y.dtype)
        found = torch.autograd.grad((y * goal).sum(), list(inputs.values()), allow_unused=True)
        grads = dict(zip(inputs, found, strict=True))
        unused = [name for name, grad in grads.items() if grad is None]
        if unused:
            yield f"forward does not use: {', '.join(unused)}"
            return
        waiting -= {name for name, grad in grads.items() if grad.any()}
        _step(trainable(block), grads)
    if waiting:
        yield f"zero gradient for {_TRAINING_STEPS} steps: {', '.join(sorted(waiting))}"


def identity_at_start(case: Case) -> Iterator[str]:
    """A block that promises it returns its input exactly when it is new."""
    if not case.block.identity_at_start:
        return
    for training in (True, False):
        x = case.clips()
        y = case.build(scramble=False).train(training)(x)
        if not torch.equal(x, y):
            yield f"differs from the input by {gap(y, x):.1e} (training={training})"


def shapes_are_as_annotated(case: Case) -> Iterator[str]:
    """What the signatures say about shapes (jaxtyping) holds while the block runs, where beartype is there to see."""
    if not signatures.available():
        return
    block, x = case.build(), case.clips()
    runs: dict[str, Callable[[], Any]] = {
        "training": lambda: block.train()(x),
        "evaluation": lambda: block.eval()(x),
        "attention": lambda: block.eval().attention(x, (0, 0, 0)),
    }
    for name, run in runs.items():
        try:
            with signatures.executed(block):
                run()
        except TypeCheckError as error:
            yield f"in {name}: {signatures.told(error)}"


def clips_are_independent_in_eval(case: Case) -> Iterator[str]:
    """In evaluation a clip's output does not depend on the other clips of its batch."""
    block, x = case.build(dtype=torch.float32).eval(), case.clips(dtype=torch.float32)
    single = block(x)
    block, x = block.double(), x.double()
    together, alone = block(x), block(x[:1])
    if message := too_far(alone, together[:1], single[:1], largest(together)):
        yield f"a clip alone and in a batch: {message}"


def deterministic(case: Case) -> Iterator[str]:
    """One seed, one block; one block and input, one output."""
    first, second, x = case.build(scramble=False), case.build(scramble=False), case.clips()
    if not all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)):
        yield "the same seed initialised different weights"
    block = case.build().eval()
    if not torch.equal(block(x), block(x)):
        yield "the same input gave different outputs in eval mode"


def config_survives_json(case: Case) -> Iterator[str]:
    """A config written as JSON and read again is the same config."""
    values = json.loads(json.dumps(config_dict(case.config)))
    if case.config.name in BUILTIN:
        again = parse_config(values)
    else:  # need not be registered under its name yet
        again = type(case.config).parse({key: value for key, value in values.items() if key != "name"})
    if again != case.config:
        yield f"expected {case.config}, got {again}"


def leaves_its_input_alone(case: Case) -> Iterator[str]:
    """Somebody else may still need what a block was given."""
    x = case.clips()
    with torch.no_grad():
        case.build().eval()(x)
    if not torch.equal(x, case.clips()):
        yield "forward changes its input in place: write x = x + y, not x += y"


def half_precision_is_near(case: Case) -> Iterator[str]:
    """Under autocast the output stays near that of full precision, and gradients are finite."""
    block, x = case.build(dtype=torch.float32, scramble=False), case.clips(dtype=torch.float32).requires_grad_()
    lively(block)
    exact, inputs = block(x).detach(), [x, *trainable(block).values()]
    for dtype, bound in _HALF.items():
        with torch.autocast("cpu", dtype):
            lower = block(x)
        grads = torch.autograd.grad(lower.float().sum(), inputs, allow_unused=True)
        off = float((lower.detach() - exact).norm() / exact.norm())
        if not lower.isfinite().all():
            yield f"in {dtype} the output is not finite"
        elif off > bound:
            yield f"in {dtype} the output differs by {off:.2%} of its norm, allowed {bound:.2%}"
        if not all(grad is None or grad.isfinite().all() for grad in grads):
            yield f"in {dtype} a gradient is not finite"


def state_survives_a_file(case: Case) -> Iterator[str]:
    """What was trained, saved and loaded into a new block gives the same output; loading runs no pickled code."""
    block, x, file = case.build().train(), case.clips(), io.BytesIO()
    with torch.no_grad():
        block(x)
    torch.save(block.eval().state_dict(), file)
    file.seek(0)
    again = case.build(scramble=False, seed=1).eval()
    again.load_state_dict(torch.load(file, weights_only=True))
    if not torch.equal(block(x), again(x)):
        yield "the reloaded block gives another output: it depends on what is neither parameter nor buffer"


def cost_is_what_runs(case: Case) -> Iterator[str]:
    """The closed form equals the parameters there are and what the reference evaluation executes."""
    with torch.device("meta"):
        block = case.block(_with(case.config, implementation="reference"), case.shape)
    cost, executed = block.cost(), observe(block, case.shape)
    counted = {
        "params": (cost.params, sum(parameter.numel() for parameter in block.parameters())),
        "macs": (cost.macs, executed.macs),
        "product_macs": (cost.product_macs, executed.product_macs),
        "peak_activation_elements": (cost.peak_activation_elements, executed.peak_activation_elements),
    }
    for name, (formula, counts) in counted.items():
        if formula != counts:
            held = f": {executed.held_at_peak}" if name == "peak_activation_elements" else ""
            yield f"closed form says {name} = {formula}, executed {counts}{held}"


def problems_are_raised(case: Case) -> Iterator[str]:
    """What `problems` finds stops the construction with every problem named; what it accepts runs."""
    c, t, h, w = case.shape
    for shape in (Shape(c + 1, t, h, w), Shape(1, t, h, w), Shape(c, 1, 1, 1), Shape(c, t, 1, w), Shape(c, 1, h, w)):
        problems = case.config.problems(shape)
        try:
            with torch.device("meta"):
                case.block(case.config, shape).eval()(torch.empty(BATCH, *shape))
        except ValueError as error:
            unsaid = [problem for problem in problems if problem not in str(error)]
            if not problems:
                yield f"problems({shape}) is empty, but: {error}"
            elif unsaid:
                yield f"the error at {shape} does not say {unsaid}"
        else:
            if problems:
                yield f"problems({shape}) says {problems}, but the block was built and ran"


def attention_maps(case: Case) -> Iterator[str]:
    """Maps of one position: `[B, G, T, H, W]`, finite, non-negative where promised, never through the N x N map."""
    block, x = case.build().eval(), case.clips()
    position = (case.shape.frames - 1, case.shape.height // 2, case.shape.width // 3)
    maps = block.attention(x, position)
    if maps is None:
        return
    if maps.ndim != 5 or maps.shape[0] != x.shape[0] or maps.shape[2:] != x.shape[2:]:
        yield f"expected [{x.shape[0]}, G, {', '.join(map(str, x.shape[2:]))}], got {list(maps.shape)}"
    elif not maps.isfinite().all():
        yield "a map is not finite"
    elif maps.min() < 0 and not block.signed_attention:
        yield f"a map has the value {maps.min():.1e}; negative ones need signed_attention"
    larger = case.shape._replace(height=8 * case.shape.height, width=8 * case.shape.width)
    with torch.device("meta"):
        empty = case.block(case.config, larger)
    seen = observe(empty, larger, lambda block, x: block.attention(x, position))  # type: ignore[operator]
    if seen.largest_tensor_elements >= larger.positions**2:
        yield f"a tensor of {seen.largest_tensor_elements} elements was made at N={larger.positions}"


def auto_equals_reference(case: Case) -> Iterator[str]:
    """Both implementations cost the same and agree, forward and backward, as far as rounding lets the reference."""
    if not hasattr(case.config, "implementation"):
        return
    auto, reference = (_with(case.config, implementation=choice) for choice in ("auto", "reference"))
    if case.block.closed_form(auto, case.shape) != case.block.closed_form(reference, case.shape):
        yield "the counted cost depends on the implementation"
    for training in (True, False):
        with as_on_large_maps():
            ours = {dtype: _forward_backward(case, auto, dtype, training) for dtype in DTYPES}
            plain = {dtype: _forward_backward(case, reference, dtype, training) for dtype in DTYPES}
        exact, single = plain[torch.float64], plain[torch.float32]
        of_all = max(map(largest, exact.values()))
        for found in ours.values():
            for name, value in found.items():
                if message := too_far(value, exact[name], single[name], of_all):
                    yield f"{name} (training={training}): {message}"


CHECKS: tuple[Callable[[Case], Iterator[str]], ...] = (
    shape_and_dtype,
    trains_on_the_fewest_clips,
    trains_from_the_start,
    identity_at_start,
    shapes_are_as_annotated,
    clips_are_independent_in_eval,
    deterministic,
    leaves_its_input_alone,
    half_precision_is_near,
    config_survives_json,
    state_survives_a_file,
    cost_is_what_runs,
    problems_are_raised,
    attention_maps,
    auto_equals_reference,
)


def _messages(check: Callable[[Case], Iterator[str]], case: Case) -> list[str]:
    try:
        return list(check(case))
    except Exception as error:  # a third party's block may raise anything; one check must not hide the others
        return [f"{type(error).__name__}: {error}"]


def _config_class(kind: type[Block[Any]]) -> type[BlockConfig]:
    builtin = {path: name for name, (_, path) in BUILTIN.items()}
    name = builtin.get(f"{kind.__module__}:{kind.__qualname__}")
    if name is not None:
        return config_type(name)
    if not hasattr(kind, "Config"):
        raise ValueError(f"{kind.__qualname__} needs an attribute Config, a frozen dataclass derived from BlockConfig")
    config: type[BlockConfig] = kind.Config
    return config


def _with(config: BlockConfig, *, implementation: str) -> BlockConfig:
    if not hasattr(config, "implementation"):
        return config
    return replace(config, **{"implementation": implementation})


def _step(parameters: Mapping[str, Tensor], grads: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in parameters.items():
            grad = grads[name]
            parameter.sub_(0.1 * grad / grad.abs().max().clamp_min(torch.finfo(grad.dtype).tiny))


def _forward_backward(case: Case, config: BlockConfig, dtype: torch.dtype, training: bool) -> dict[str, Tensor]:
    """Output and gradients, from the same weights and clips in every dtype."""
    block = case.build(config=config, dtype=torch.float32).to(dtype).train(training)
    x = case.clips(dtype=torch.float32).to(dtype).requires_grad_()
    seed_torch(2)  # the same dropout
    y = block(x)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(3)).to(dtype)
    named = {"input": x, **trainable(block)}
    grads = torch.autograd.grad((y * weights).sum(), list(named.values()))
    return {"output": y, **{f"gradient of {name}": grad for name, grad in zip(named, grads, strict=True)}}

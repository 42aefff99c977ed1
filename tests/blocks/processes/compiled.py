"""Every block, with every choice it has, is captured whole by torch.compile, and once for all clip lengths."""

import sys

import pytest
import torch
import torch._dynamo
from torch import nn

from blocks import affinity, block_names, block_type, config_type
from blocks.cases import Case
from blocks.configs import Shape
from blocks.variants import fitting_shape, variants


def check(case: Case, backend: str) -> None:
    torch._dynamo.reset()
    train = backend != "inductor"  # inductor's own backward of a convolution fixes the sizes
    block = case.build(dtype=torch.float32).train(train)
    compiled = torch.compile(block, fullgraph=True, backend=backend)
    # A clip of exactly ts frames is one part per row of BAT's M, and sizes of one are always compiled by themselves.
    first = case.shape.frames * (2 if getattr(case.config, "temporal", False) else 1)
    for frames in (first, 2 * first):
        x = case.clips(dtype=torch.float32, shape=case.shape._replace(frames=frames))
        torch._dynamo.mark_dynamic(x, 2)
        with torch._dynamo.config.patch(error_on_recompile=frames != first):
            if train:
                compare(outcome(compiled, block, x), outcome(block, block, x))
            else:
                with torch.no_grad():
                    compare([compiled(x)], [block(x)])


def check_refusal() -> None:
    """Dynamo raises an error of its own, which has to quote the block's."""
    block = Case(block_type("nl"), config_type("nl")(), Shape(16, 2, 3, 5)).build(dtype=torch.float32)
    compiled = torch.compile(block, fullgraph=True, backend="eager")
    compiled(torch.zeros(2, 16, 2, 3, 5))
    for size, says in (((2, 16, 3, 5), "must have the 5 axes"), ((2, 8, 2, 3, 5), "the 16 channels it was built for")):
        with pytest.raises(torch._dynamo.exc.Unsupported, match=says):
            compiled(torch.zeros(size))


def outcome(run: nn.Module, block: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    y = run(x)
    parameters = [parameter for parameter in block.parameters() if parameter.requires_grad]
    if not parameters:
        return [y]
    return [y, *torch.autograd.grad(y.square().mean(), parameters)]


def compare(given: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for a, b in zip(given, expected, strict=True):
        assert (a - b).abs().max() <= 1e-3 * b.abs().max().clamp_min(1.0), float((a - b).abs().max())


def main() -> None:
    torch.set_num_threads(1)
    affinity._KEEP_SMALL_MAPS = False  # the evaluations of large maps, on maps that are quick
    check_refusal()
    failed = []
    for name in sys.argv[1:] or block_names():
        for config in variants(config_type(name)()):
            shape = fitting_shape(config)
            assert shape is not None
            case = Case(block_type(name), config, shape)
            for backend in ["aot_eager", "inductor"][: 2 if config == config_type(name)() else 1]:
                try:
                    check(case, backend)
                except Exception as error:
                    failed.append(f"{backend} {config}: {type(error).__name__}: {error}")
    print("\n".join(failed))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()

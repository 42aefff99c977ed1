"""Which operations multiply and accumulate, how often, and which do not; everything else is an error.

Executed MACs are the multiply-accumulates of convolutions, linear maps and matrix products, attention included
(1 MAC = 2 FLOPs). Element-wise arithmetic, normalisation, pooling, softmax, sorting, interpolation and data movement
hold none by definition. An operation that is in neither group is refused by name: a counter that skips what it does
not know is how attention came to cost nothing in print.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from math import prod

Sizes = Sequence[int]


class UnknownOperation(ValueError):
    """An operation that no rule here covers; the message names it."""

    def __init__(self, name: str, where: str) -> None:
        super().__init__(
            f"cannot count {name!r} in {where}: it is not known to hold multiply-accumulates nor to be free of them; "
            "write it as plain products (matmul, conv, linear), or add it to workloads/counting/ops.py"
        )
        self.name = name


class Disagreement(ValueError):
    """Two counters differ on the same piece; the message holds both values."""

    def __init__(self, what: str, opinions: dict[str, int]) -> None:
        said = ", ".join(f"{counter} {value:,}" for counter, value in opinions.items())
        super().__init__(f"the counters disagree on {what}: {said} MACs; one of them misses an operation")


def convolution(x: Sizes, weight: Sizes, out: Sizes, transposed: bool = False) -> int:
    """Every output element (input element, if transposed) meets one kernel per input channel of its group."""
    return prod(x if transposed else out) * prod(weight[1:])


def product(a: Sizes, b: Sizes, out: Sizes) -> int:
    """`a @ b` with broadcasting, of matrices or vectors: each output sums over the inner axis of `a`."""
    return prod(out) * a[-1]


def einsum(equation: str, sizes: Sequence[Sizes]) -> int:
    """Pairwise products from left to right, as `torch.einsum` evaluates them without an optimiser.

    Raises:
        UnknownOperation: an ellipsis or a repeated index, whose cost depends on more than the letters.
    """
    inputs, _, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if "." in equation or not output or any(len(set(term)) < len(term) for term in terms):
        raise UnknownOperation(f"einsum {equation}", "the traced graph")
    size = {letter: n for term, shape in zip(terms, sizes, strict=True) for letter, n in zip(term, shape, strict=True)}
    left, total = set(terms[0]), 0
    for place, term in enumerate(terms[1:], start=1):
        left &= set(output).union(*terms[place:])  # what only one operand has is summed before the product
        right = set(term) & (left | set(output).union(*terms[place + 1 :]))
        total += prod(size[letter] for letter in left | right)
        left = (left | right) & set(output).union(*terms[place + 1 :])
    return total


# Operations that the tags of torch (pointwise, reduction, view) do not mark, and that hold no multiply-accumulates.
# fmt: off
FREE = frozenset(
    {
        "Int", "NumToTensor", "ScalarImplicit", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d",
        "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "_safe_softmax", "_softmax", "_to_copy",
        "_unsafe_index", "_unsafe_view", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
        "adaptive_max_pool2d", "adaptive_max_pool3d", "arange", "argsort", "avg_pool1d", "avg_pool2d", "avg_pool3d",
        "batch_norm", "broadcast_tensors", "bucketize", "cat", "constant_pad_nd", "copy_", "cumsum", "detach_",
        "dropout", "dropout_", "empty", "empty_like", "empty_strided", "eye", "feature_dropout", "fill_", "flip",
        "floor_divide", "full", "full_like", "gather", "group_norm", "index", "index_select", "instance_norm",
        "is_nonzero", "item", "layer_norm", "lift", "log_softmax", "max_pool1d", "max_pool2d",
        "max_pool2d_with_indices", "max_pool3d", "max_pool3d_with_indices", "max_unpool2d", "native_batch_norm",
        "native_group_norm", "native_layer_norm", "new_empty", "new_full", "new_ones", "new_zeros", "one_hot", "ones",
        "ones_like", "pad", "repeat", "repeat_interleave", "roll", "scalar_tensor", "scatter", "scatter_",
        "searchsorted", "size", "slice_scatter", "softmax", "sort", "squeeze_", "stack", "take_along_dim", "tensor",
        "tile", "topk", "type_as", "unsqueeze_", "upsample_bilinear2d", "upsample_linear1d", "upsample_nearest1d",
        "upsample_nearest2d", "upsample_nearest3d", "upsample_trilinear3d", "zero", "zero_", "zeros", "zeros_like",
    }
)
# fmt: on


@cache
def is_free(name: str) -> bool:
    """Whether torch operation `name` ("relu_", "native_batch_norm") holds no multiply-accumulates."""
    import torch

    if name in FREE:
        return True
    packet = getattr(torch.ops.aten, name, None)
    if packet is None or name in COUNTED:
        return False
    free_tags = {torch.Tag.pointwise, torch.Tag.reduction}
    variants = [getattr(packet, overload) for overload in packet.overloads()]
    return any(variant.is_view or free_tags & set(variant.tags) for variant in variants)


# Dispatched torch operation -> MACs from the sizes of its tensor arguments and of its result.
COUNTED: dict[str, Callable[[list[Sizes], Sizes], int]] = {
    "mm": lambda sizes, out: product(sizes[0], sizes[1], out),
    "bmm": lambda sizes, out: product(sizes[0], sizes[1], out),
    "mv": lambda sizes, out: product(sizes[0], sizes[1], out),
    "dot": lambda sizes, out: sizes[0][0],
    "addmm": lambda sizes, out: product(sizes[1], sizes[2], out),
    "addmv": lambda sizes, out: product(sizes[1], sizes[2], out),
    "baddbmm": lambda sizes, out: product(sizes[1], sizes[2], out),
}
CONVOLUTIONS = frozenset({"convolution", "_convolution", "convolution_overrideable"})

"""Rows of a table of layers: what each layer is and the size of what it puts out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

Sizes = tuple[int, ...]


class Conv(NamedTuple):
    """A convolution and the spatial (and temporal) size of its output."""

    cin: int
    cout: int
    kernel: Sizes
    out: Sizes
    groups: int = 1
    bias: bool = False


class Norm(NamedTuple):
    """A batch norm on a map of `out`."""

    channels: int
    out: Sizes


class Dense(NamedTuple):
    """A fully connected layer with bias."""

    cin: int
    cout: int


Rows = Iterator[Conv | Norm | Dense]


def normed(cin: int, cout: int, kernel: int | Sizes, out: Sizes, groups: int = 1) -> Rows:
    """A convolution without bias and the batch norm behind it."""
    yield Conv(cin, cout, kernel if isinstance(kernel, tuple) else (kernel,) * len(out), out, groups)
    yield Norm(cout, out)


def preactivated(cin: int, cout: int, kernel: int, out: Sizes, *, given: Sizes = (), groups: int = 1) -> Rows:
    """A batch norm on a map of `given` (of `out`, if empty) and the convolution without bias behind it."""
    yield Norm(cin, given or out)
    yield Conv(cin, cout, (kernel,) * len(out), out, groups)

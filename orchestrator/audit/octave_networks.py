"""ResNets with octave convolutions, layer by layer: a share of the channels lives at half the height and width.

Paper: Chen et al. 2019 (Drop an Octave). Code consulted: facebookresearch/OctConv (utils/symbol), for what happens
where a unit strides and in res5; none copied.
"""

from __future__ import annotations

from itertools import product

from orchestrator.audit.layers import Conv, Dense, Norm, Rows, Sizes, normed

# I3D's units whose first convolution sees three frames, res2 to res5.
INFLATED = ((0, 1, 2), (0, 2), (0, 2, 4), (1,))


def octave(
    channels: tuple[int, int], shares: tuple[float, float], kernel: Sizes, out: Sizes, *, stride: int = 1
) -> Rows:
    """Four convolutions, from high and low to high and low resolution, and a batch norm on each result.

    Args:
        channels: in, out.
        shares: of the channels in and out that are at low resolution; rounded down.
        kernel: of the convolution that the four replace.
        out: size of the high-resolution result.
        stride: 2 pools the input before; what goes from low to high is then already as small as the result.
    """
    half = (*out[:-2], *(-(-size // 2) for size in out[-2:]))
    (cin, cout), (share_in, share_out) = channels, shares
    lows = int(cin * share_in), int(cout * share_out)
    given, made = (cin - lows[0], lows[0]), (cout - lows[1], lows[1])
    for (source, taken), (target, put) in product(enumerate(given), enumerate(made)):
        at = half if target or (source and stride == 1) else out
        if taken and put:
            yield Conv(taken, put, kernel, at)
    yield Norm(made[0], out)
    if made[1]:
        yield Norm(made[1], half)


def oct_resnet50(classes: int, low: float, *, video: bool) -> Rows:
    """ResNet-50 with `low` of the channels of res2 to res4 at low resolution, res5 has none.

    Args:
        classes: outputs of the classifier.
        low: share of the channels.
        video: I3D on 8 frames (4 from res3 on), the stem's max-pool unpadded; else an image.
    """

    def sized(side: int, frames: int = 1) -> Sizes:
        return (frames, side, side) if video else (side, side)

    side, cin, before = (55 if video else 56), 64, 0.0
    yield from normed(3, cin, sized(7, 5), sized(112, 8))
    for stage, units in enumerate((3, 4, 6, 3)):
        width, share, frames = 64 * 2**stage, low if stage < 3 else 0.0, 4 if stage else 8
        for unit in range(units):
            stride = 2 if stage and not unit else 1
            given, side = sized(side, frames), -(-side // stride)
            out, first = sized(side, frames), sized(1, 3 if unit in INFLATED[stage] else 1)
            yield from octave((cin, width), (before, share), first, given)
            yield from octave((width, width), (share, share), sized(3), out, stride=stride)
            yield from octave((width, 4 * width), (share, share), sized(1), out)
            if not unit:
                yield from octave((cin, 4 * width), (before, share), sized(1), out, stride=stride)
            cin, before = 4 * width, share
    yield Dense(cin, classes)

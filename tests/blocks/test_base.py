"""What every block refuses, with what was given, what is allowed and what to change."""

import copy
import pickle
import re

import pytest
import torch

from blocks import block_names, block_type, build, config_type
from blocks.configs import BATConfig, HGNLConfig, NonLocalConfig, RNLConfig, SERNLConfig, Shape
from blocks.variants import fitting_shape

DEFAULTS = [config_type(name)() for name in block_names()]
every_block = pytest.mark.parametrize("config", DEFAULTS, ids=lambda config: config.name)


def made(config):
    return build(config, fitting_shape(config)).eval()


@every_block
@pytest.mark.parametrize("axes", [3, 4, 6])
def test_another_rank_is_refused(config, axes):
    block = made(config)
    size = [*block.shape, *[1] * 3][:axes]
    says = (
        f"block '{config.name}': x must have the 5 axes [B, C, T, H, W], given {axes}: {size}; "
        "a clip alone is x[None], frames alone are x[:, :, None]"
    )
    with pytest.raises(ValueError, match=re.escape(says)):
        block(torch.zeros(size))


@every_block
def test_other_channels_are_refused(config):
    block = made(config)
    c, *map_size = block.shape
    says = (
        f"block '{config.name}': x must have the {c} channels it was built for, given {2 * c} in "
        f"{[1, 2 * c, *map_size]}: build it with the Shape of this map, or insert it elsewhere"
    )
    with pytest.raises(ValueError, match=re.escape(says)):
        block(torch.zeros(1, 2 * c, *map_size))


@every_block
@pytest.mark.parametrize("shape", [Shape(64, 0, 8, 8), Shape(-64, 4, 8, 8)], ids=str)
def test_what_is_no_shape_is_refused_at_construction(config, shape):
    with pytest.raises(ValueError, match=r"cannot be inserted at .*Shape\(channels, frames, height, width\)"):
        build(config, shape)


@every_block
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("outside", ["before", "behind"])
def test_a_position_outside_the_map_has_no_attention(config, axis, outside):
    block = made(config)
    x = torch.zeros(1, *block.shape)
    if block.attention(x, (0, 0, 0)) is None:
        return
    position = [0, 0, 0]
    position[axis] = -1 if outside == "before" else block.shape[1 + axis]
    t, h, w = block.shape[1:]
    says = (
        f"block '{config.name}': position (t, h, w) must lie in the {t} x {h} x {w} map, counted from 0, "
        f"given {tuple(position)}"
    )
    with pytest.raises(ValueError, match=re.escape(says)):
        block.attention(x, tuple(position))
    with pytest.raises(ValueError, match="channels it was built for"):
        block.attention(torch.cat((x, x), 1), (0, 0, 0))


@every_block
def test_a_block_can_be_copied_and_pickled_with_what_it_refuses(config):
    block = made(config)
    for again in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        with pytest.raises(ValueError, match="must have the 5 axes"):
            again(torch.zeros(block.shape))


@pytest.mark.parametrize(
    ("config", "shape", "says"),
    [
        (
            NonLocalConfig(heads=3),
            Shape(16, 2, 4, 4),
            "16 channels are not divisible by reduction * heads=6: use one of [1, 2, 4, 8, 16]",
        ),
        (NonLocalConfig(sub_sample="before"), Shape(16, 2, 1, 4), "2 x 2, given 1 x 4: turn sub_sample off"),
        (
            HGNLConfig(g1=16, g2=4),
            Shape(64, 3, 1, 1),
            "m1 = 64 / 8 = 8: 8 channels are not divisible by g1=16: use one of [4, 8]",
        ),
        (HGNLConfig(g1=16, g2=4), Shape(24, 3, 1, 1), "not divisible by g1=16: no multiple of 4 divides them"),
        (
            RNLConfig(parity="masked_grouped"),
            Shape(96, 3, 5, 7),
            "group of 32 channels does not divide C / reduction = 48: use parity='depthwise', which computes the same",
        ),
        (BATConfig(s=8), Shape(64, 4, 7, 9), "s=8 is larger than the 7 x 9 map: use s <= 7"),
        (BATConfig(), Shape(64, 6, 7, 9), "T=6 is not a multiple of ts=4: use a divisor of 6"),
    ],
)
def test_problems_say_what_is_given_allowed_and_to_change(config, shape, says):
    assert says in "; ".join(config.problems(shape))
    with pytest.raises(ValueError, match="cannot be inserted at") as caught:
        build(config, shape)
    assert says in str(caught.value)


@every_block
@pytest.mark.parametrize("axis", [0, 2, 3, 4])
@pytest.mark.parametrize("training", [True, False])
def test_what_is_empty_is_refused(config, axis, training):
    block = made(config).train(training)
    size = [2, *block.shape]
    size[axis] = 0
    says = f"block '{config.name}': x must hold at least one clip, frame, row and column, given {size}"
    with pytest.raises(ValueError, match=re.escape(says)):
        block(torch.zeros(size))


@every_block
def test_one_vector_in_all_trains_or_says_what_to_change(config):
    shape = fitting_shape(config)._replace(frames=1, height=1, width=1)
    if config.problems(shape):
        return
    block, x = build(config, shape), torch.randn(1, *shape)
    needs_more = [part for part in block.modules() if "BatchNorm" in type(part).__name__]
    if needs_more:
        with pytest.raises(ValueError, match=rf"block '{config.name}': training needs at least 2 .* micro-batch of 2"):
            block(x)
    else:
        assert block(x).shape == x.shape
    assert block.eval()(x).shape == x.shape


def test_which_blocks_start_as_the_identity():
    starts = {config.name for config in DEFAULTS if block_type(config.name).identity_at_start}
    assert starts >= {"none", "nl", "hgnl", "rnl", "se_rnl", "pnl", "gc", "cgnl"}


@every_block
def test_normalisations_are_as_usual(config):
    """Momentum 0.1 and epsilon 1e-5 everywhere, whatever the released codes say: the docstrings promise it."""
    norms = [part for part in made(config).modules() if hasattr(part, "eps")]
    assert {part.eps for part in norms} <= {1e-5}
    assert {part.momentum for part in norms if hasattr(part, "momentum")} <= {0.1}


def test_how_many_clips_a_device_needs_is_known_without_building():
    assert [config.name for config in DEFAULTS if config.least_clips > 1] == [SERNLConfig.name]
    assert SERNLConfig.least_clips == 2

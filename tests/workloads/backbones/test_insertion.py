"""The insertion grammar: what it names, in which order, and everything that is wrong at once."""

import pytest

from blocks.configs import Shape
from workloads.backbones.insertion import insertion_points
from workloads.registry import parse_backbone

R50 = parse_backbone({"name": "c2d_resnet50"})


def names(insertion, backbone=R50):
    return [str(point) for point in insertion_points(backbone, insertion)]


def test_points_come_in_network_order_whatever_the_order_given():
    given = {"head": [0], "res4": [2, 0], "res3/branch": [1], "res3": [1], "res3/conv1": "all"}
    assert names(given) == [
        "res3.0/conv1",
        "res3.1/conv1",
        "res3.1/branch",
        "res3.1",
        "res3.2/conv1",
        "res3.3/conv1",
        "res4.0",
        "res4.2",
        "head.0",
    ]


def test_every_point_knows_the_map_at_its_place():
    points = insertion_points(R50, {"res3/conv1": [0, 1], "res3/branch": [0], "res3": [3], "head": [0]})
    assert {str(point): point.shape for point in points} == {
        "res3.0/conv1": Shape(128, 4, 56, 56),  # before the stride of the stage's first unit
        "res3.1/conv1": Shape(128, 4, 28, 28),
        "res3.0/branch": Shape(512, 4, 28, 28),
        "res3.3": Shape(512, 4, 28, 28),
        "head.0": Shape(2048, 4, 1, 1),
    }


def test_a_neck_changes_the_width_at_the_head():
    config = parse_backbone({"name": "tsn_se_resnext101_32x4d", "frames": 25, "neck_width": 1024})
    assert insertion_points(config, {"head": [0]})[0].shape == Shape(1024, 25, 1, 1)


def test_nothing_is_a_valid_insertion():
    assert names({}) == []
    assert names({"res3": []}) == []


def test_all_problems_are_told_at_once():
    given = {
        "res1": [0],
        "res3/conv9": [0],
        "res4": [1, 6, -1],
        "res5": [1, 1],
        "res2": "every",
        "head/branch": [0],
        "head": [1],
        "res3": [True],
    }
    with pytest.raises(ValueError, match="stage 'res1'") as raised:
        insertion_points(R50, given)
    assert str(raised.value).split("; ") == [
        "stage 'res1' does not exist in c2d_resnet50: use one of res2, res3, res4, res5, head",
        "place 'conv9' does not exist in res3: use conv1, branch, unit",
        "res4 has units 0..5, given [6, -1]",
        "res5: the same unit twice in [1, 1]",
        "res2: give a list of units or 'all', given 'every'",
        "place 'branch' does not exist in head: use unit",
        "head has units 0..0, given [1]",
        "res3 has units 0..3, given [True]",
    ]


def test_one_place_has_one_block_however_it_is_spelled():
    with pytest.raises(ValueError, match=r"res3\.1 is named twice"):
        insertion_points(R50, {"res3": [1], "res3/unit": [1, 2]})
    with pytest.raises(ValueError, match="place '' does not exist in res3"):
        insertion_points(R50, {"res3/": [1]})


def test_multi_fibre_units_have_no_place_after_a_first_convolution():
    mfnet = parse_backbone({"name": "mfnet"})
    assert names({"res4": [4], "res4/branch": [5]}, mfnet) == ["res4.4", "res4.5/branch"]
    with pytest.raises(ValueError, match="place 'conv1' does not exist in res4: use branch, unit"):
        names({"res4/conv1": [0]}, mfnet)

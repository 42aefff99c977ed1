"""Parts of a trial that are sound but do not go together are found without data and without torch."""

import pytest

from workloads.backbones.model import build_model
from workloads.fits import misfits
from workloads.registry import parse_backbone
from workloads.spec import ModelSpec, TrialSpec


def trial(**changes):
    return TrialSpec.model_validate(
        {
            "workload": {"name": "folder", "root": "/nowhere", "class_count": 5},
            "backbone": {"name": "resnet_tiny", "frames": 4, "size": 32, "classes": 5, "channels": 3},
            "block": {"name": "none"},
            "insertion": {},
            "recipe": {"name": "custom"},
            "protocol": "centre",
            "seed": 0,
            **changes,
        }
    )


def tiny(**fields):
    return {"name": "resnet_tiny", "frames": 4, "size": 32, "classes": 5, "channels": 3, **fields}


DIGITS = {"workload": "digits", "backbone": tiny(size=16, classes=10, channels=1)}
FEATURES = {
    "workload": {"name": "frame-features", "root": "/nowhere", "class_count": 5, "width": 8},
    "backbone": {"name": "frame_features", "channels": 8, "classes": 5},
}


@pytest.mark.parametrize(
    "sound",
    [
        {},
        {"recipe": {"freeze": ["stem", "res2"]}},
        {"protocol": "views_10x3"},
        {"protocol": "segments_25"},
        DIGITS,
        {**FEATURES, "protocol": "segments_25"},
    ],
)
def test_what_goes_together(sound):
    assert misfits(trial(**sound)) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"backbone": tiny(classes=4)}, "backbone.classes=4, but folder has 5 classes"),
        ({"backbone": tiny(channels=1)}, "backbone.channels=1, but folder has 3 channels"),
        ({"recipe": {"freeze": ["stem", "res9"]}}, "stem, res2, res3, res4, res5, in this order: given stem, res9"),
        ({"recipe": {"freeze": ["res2"]}}, "must name the first of the stages"),
        ({**DIGITS, "protocol": "views_2x3"}, "digits has one view per clip"),
        ({**DIGITS, "backbone": tiny(classes=10, channels=1)}, "clips of digits have size 16"),
        ({**FEATURES, "protocol": "views_10x3"}, "frame features have no crops"),
        (
            {
                "block": {"name": "bat", "s": 2, "kt": 2, "k": 4},
                "insertion": {"res3": [0]},
                "protocol": {"frames": 5},
            },
            "protocol 'custom' shows 5 frames of 32 pixels: ",
        ),
    ],
)
def test_what_does_not(wrong, message):
    assert message in "; ".join(misfits(trial(**wrong)))


@pytest.mark.parametrize("name", ["resnet_tiny", "c2d_resnet18", "i3d_resnet18", "mfnet", "frame_features"])
def test_stages_are_named_as_in_the_network(name):
    """Freezing is checked by config alone; the network must agree."""
    backbone = parse_backbone({"name": name, **({} if name == "frame_features" else {"size": 32})})
    model = build_model(ModelSpec.model_validate({"backbone": backbone, "block": {"name": "none"}}))
    assert list(model.stage_modules()) == ["stem", *backbone.stages()]

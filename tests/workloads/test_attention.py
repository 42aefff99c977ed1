"""Attention end to end on the workloads' side: from a trained trial to plain arrays, for made-up and recorded clips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from videos import make_folder

from workloads import checkpoints
from workloads.attention import Attention, load_model, look, save, train_again, trained_model
from workloads.spec import RunContext, TrialSpec

DIGITS = {"name": "digits", "train_clips": 64, "validation_clips": 32, "still_images": 0}
EMBEDDED = {"workload": DIGITS, "backbone": {"name": "resnet_tiny"}, "protocol": "centre", "seed": 3}
NL = {"name": "nl", "scale": "sqrt"}


def trial(block: Any, insertion: dict[str, Any], **recipe: Any) -> TrialSpec:
    backbone = {"name": "resnet_tiny", "frames": 4, "size": 16, "classes": 10, "channels": 1}
    content = {**EMBEDDED, "backbone": backbone, "block": block, "insertion": insertion}
    return TrialSpec.model_validate({**content, "recipe": {"name": "quick", "epochs": 1, "batch": 32, **recipe}})


def context(folder: Path) -> RunContext:
    return RunContext(cache_dir=folder / "cache", checkpoint_dir=folder / "checkpoints")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrialSpec, RunContext, Any]:
    spec, where = trial(NL, {"res3": [0], "res4": [0]}), context(tmp_path_factory.mktemp("trained"))
    return spec, where, train_again(spec, where)


def test_maps_are_those_of_the_blocks_on_what_reaches_them(trained: Any) -> None:
    spec, where, model = trained
    found = look(spec, model, where, clips=[5, 2], positions=[(0, 0, 0), (3, 9, 15)])
    assert found.clips == ("validation-00005", "validation-00002")
    assert found.frames.shape == (2, 4, 16, 16, 1)
    assert list(found.maps) == ["res3.0", "res4.0"]
    source = spec.workload.open().source(spec, where)
    (batch,) = source.validation(spec.protocol, [np.array([5, 2])])
    x = batch.inputs[:, 0]
    with torch.no_grad():
        for module in [*model.chain()["stem"], *model.chain()["res2"]]:
            x = module(x)
        unit = model.units("res3")[0]
        unit.long_range["unit"].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        seen: list[torch.Tensor] = []
        unit(x)
        height, width = seen[0].shape[3:]
        expected = unit.long_range["unit"].attention(seen[0], (3, 9 * height // 16, 15 * width // 16))
    np.testing.assert_array_equal(found.maps["res3.0"][:, 1], expected.numpy())
    np.testing.assert_allclose(found.maps["res3.0"].sum((3, 4, 5)), 1, rtol=1e-5)


def test_predictions_are_the_three_most_probable_classes(trained: Any) -> None:
    spec, where, model = trained
    found = look(spec, model, where, clips=[7], positions=[(0, 0, 0)])
    source = spec.workload.open().source(spec, where)
    (batch,) = source.validation(spec.protocol, [np.array([7])])
    with torch.no_grad():
        scores = model(batch.inputs[:, 0]).softmax(-1)[0].numpy()
    np.testing.assert_array_equal(found.top_classes[0], np.argsort(-scores)[:3])
    np.testing.assert_allclose(found.top_scores[0], np.sort(scores)[::-1][:3], rtol=1e-5)
    assert found.labels[0] == source.labels[7]
    np.testing.assert_array_equal(found.frames[0, ..., 0], (255 * batch.inputs[0, 0, 0]).round().byte().numpy())


def test_a_checkpoint_gives_the_same_maps_as_the_model_and_training_again_the_same_network(
    trained: Any, tmp_path: Path
) -> None:
    spec, where, model = trained
    (path,) = where.checkpoint_dir.glob("step-*.safetensors")
    asked = {"clips": [1], "positions": [(1, 2, 3)]}
    mine = look(spec, model, where, **asked)
    same(mine, look(spec, path, where, **asked))
    same(mine, look(spec, train_again(spec, context(tmp_path)), where, **asked))


def test_averaged_weights_are_the_ones_that_look(tmp_path: Path) -> None:
    spec = trial(NL, {"res3": [0]}, ema=0.5, batch=16)
    model = train_again(spec, context(tmp_path))
    found = checkpoints.newest(tmp_path / "checkpoints")
    assert found is not None
    changed = 0
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), found.tensors[f"ema/{name}"], rtol=0, atol=0)
        changed += not torch.equal(found.tensors[f"ema/{name}"], found.tensors[f"model/{name}"])
    assert changed, "an average that equals the weights would prove nothing"


@pytest.mark.parametrize(
    ("block", "groups"),
    [({"name": "bat", "s": 2, "kt": 2, "k": 4}, 4), ({"name": "pnl", "n": 2}, 2), ({"name": "rnl"}, 1)],
)
def test_groups_and_scales_come_one_by_one(block: dict[str, Any], groups: int, tmp_path: Path) -> None:
    spec = trial(block, {"res3": [0]})
    model = load_model(spec, checkpoints.Checkpoint(_tensors(spec), {}))
    found = look(spec, model, context(tmp_path), clips=[0], positions=[(2, 8, 8)])
    assert found.maps["res3.0"].shape[:3] == (1, 1, groups)
    assert np.isfinite(found.maps["res3.0"]).all()


@pytest.mark.parametrize("block", [{"name": "none"}, {"name": "se", "reduction": 4}])
def test_networks_without_maps_still_predict(block: dict[str, Any], tmp_path: Path) -> None:
    spec = trial(block, {"res3": [0]})
    model = load_model(spec, checkpoints.Checkpoint(_tensors(spec), {}))
    found = look(spec, model, context(tmp_path), clips=[0], positions=[(0, 0, 0)])
    assert not found.maps
    assert found.top_classes.shape == (1, 3)


def test_the_file_holds_everything_without_pickle(trained: Any, tmp_path: Path) -> None:
    spec, where, model = trained
    found = look(spec, model, where, clips=[0], positions=[(1, 2, 3)])
    path = save(found, tmp_path / "new" / "maps.npz")
    assert path.stat().st_size < 20_000
    with np.load(path, allow_pickle=False) as opened:
        about = json.loads(str(opened["about"]))
        assert about["places"] == ["res3.0", "res4.0"]
        assert (about["clips"], about["positions"]) == (["validation-00000"], [[1, 2, 3]])
        np.testing.assert_array_equal(opened["map_1"], found.maps["res4.0"])
        np.testing.assert_array_equal(opened["frames"], found.frames)


def test_recorded_clips_are_shown_as_pictures_with_their_classes_names(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "squares", train=2, validation=1)
    spec = TrialSpec.model_validate(
        {
            "workload": {"name": "folder", "root": str(root)},
            "backbone": {"name": "resnet_tiny", "frames": 4, "size": 24, "classes": 2, "channels": 3},
            "block": NL,
            "insertion": {"res3": [0]},
            "recipe": {"name": "custom", "epochs": 1, "batch": 4, "lr": 5e-3},
            "protocol": {"name": "views_2x3", "size": 24},
            "seed": 0,
        }
    )
    where = context(tmp_path)
    found = look(spec, train_again(spec, where), where, clips=[1], positions=[(0, 12, 12)])
    assert found.classes == ("left", "right")
    assert found.frames.shape == (1, 4, 24, 24, 3)
    assert abs(int(np.median(found.frames)) - 30) < 5, "the background is as dark as it was recorded"
    assert found.frames.max() > 150
    assert found.maps["res3.0"].shape[:3] == (1, 1, 1)


def test_a_trial_that_did_not_end_has_no_model_yet(trained: Any) -> None:
    spec, where, _ = trained
    longer = spec.model_copy(update={"recipe": spec.recipe.model_copy(update={"epochs": 9})})
    assert trained_model(longer, where.checkpoint_dir) is None
    assert trained_model(spec, where.checkpoint_dir / "nowhere") is None


def test_what_cannot_be_shown_says_so(trained: Any) -> None:
    spec, where, model = trained
    with pytest.raises(ValueError, match=r"validation clips are 0\.\.31, given \[32\]"):
        look(spec, model, where, clips=[0, 32], positions=[(0, 0, 0)])
    with pytest.raises(ValueError, match=r"clip of 4x16x16.*given \[\(0, 16, 0\)\]"):
        look(spec, model, where, clips=[0], positions=[(0, 16, 0)])
    with pytest.raises(ValueError, match="not a checkpoint of resnet_tiny with rnl"):
        trained_model(trial({"name": "rnl"}, {"res3": [0]}), where.checkpoint_dir)


def same(one: Attention, other: Attention) -> None:
    for where, each in one.maps.items():
        np.testing.assert_array_equal(each, other.maps[where])
    np.testing.assert_array_equal(one.top_scores, other.top_scores)


def _tensors(spec: TrialSpec) -> dict[str, torch.Tensor]:
    from workloads.backbones.model import build_model

    return {f"model/{name}": tensor for name, tensor in build_model(spec).state_dict().items()}

"""The loop on a small digit-recall trial: what it yields, same bits for seeds and resumption, and its parts."""

from pathlib import Path

import numpy as np
import pytest
import torch

from workloads.backbones.model import build_model
from workloads.checkpoints import newest
from workloads.engine import make_optimizer, micro_batches
from workloads.frozen_stages import freeze_stages
from workloads.progress import CheckpointWritten, Diverged, EpochDone, Finished, Stopped
from workloads.spec import RunContext, TrialSpec


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def trial(seed=0, block="nl", insertion=None, **recipe):
    values = {"name": "quick", "epochs": 2, "batch": 16, **recipe}
    return TrialSpec.model_validate(
        {
            "workload": {"name": "digits", "train_clips": 64, "validation_clips": 40, "still_images": 128},
            "backbone": {"name": "resnet_tiny", "frames": 4, "size": 16, "classes": 10, "channels": 1},
            "block": {"name": block},
            "insertion": insertion if insertion is not None else {"res3": [0]},
            "recipe": values,
            "protocol": "centre",
            "seed": seed,
        }
    )


def run(spec, cache, folder, **context):
    return list(start(spec, cache, folder, **context))


def start(spec, cache, folder, **context):
    return spec.workload.open().run(spec, RunContext(cache_dir=cache, checkpoint_dir=folder, **context))


def losses(events):
    return [event.metrics["train_loss"] for event in events if isinstance(event, EpochDone)]


def results(events):
    """Everything of the result that must not depend on when and where it ran."""
    last = events[-1]
    timed = {"train_seconds", "eval_seconds", "peak_memory_bytes"}
    metrics = {name: value for name, value in last.metrics.items() if name not in timed}
    return metrics, last.predictions.scores.tobytes(), last.notes


def test_a_trial_yields_epochs_checkpoints_and_one_result(cache, tmp_path):
    events = run(trial(), cache, tmp_path)
    kinds = [type(event) for event in events]
    assert kinds == [EpochDone, CheckpointWritten, EpochDone, CheckpointWritten, Finished]
    assert [event.epoch for event in events[:-1]] == [0, 0, 1, 1]
    assert all(event.path.exists() for event in events if isinstance(event, CheckpointWritten))
    finished = events[-1]
    wanted = {"top1_percent", "top5_percent", "train_loss", "train_seconds", "eval_seconds"}
    assert wanted <= finished.metrics.keys()
    assert finished.metrics["top1_percent"] == events[2].metrics["top1_percent"]
    assert 1 <= len(finished.samples["latency_ms"]) <= 20
    predictions = finished.predictions
    assert predictions.scores.shape == (40, 10)
    assert len(set(predictions.clips)) == 40
    right = (predictions.scores.argmax(axis=1) == predictions.labels).mean()
    assert 100 * right == pytest.approx(finished.metrics["top1_percent"])


def test_an_epoch_is_told_before_the_checkpoint_behind_it_is_written(cache, tmp_path):
    """Killed in between, the next attempt trains it again; the other way round nobody would ever tell of it."""
    for event in start(trial(), cache, tmp_path):
        found = newest(tmp_path)
        if isinstance(event, EpochDone):
            assert (found.values["epoch"] if found else 0) == event.epoch


def test_same_seed_same_bits_whatever_ran_before(cache, tmp_path):
    first = run(trial(), cache, tmp_path / "a")
    torch.manual_seed(99)
    np.random.seed(99)
    torch.rand(1000) @ torch.rand(1000)
    threads = torch.get_num_threads()
    second = []
    for event in start(trial(), cache, tmp_path / "b"):
        torch.rand(7)
        torch.set_num_threads(2)
        second.append(event)
    torch.set_num_threads(threads)
    assert losses(first) == losses(second)
    assert results(first) == results(second)
    other = run(trial(seed=1), cache, tmp_path / "c")
    assert losses(first) != losses(other)


def test_torchs_settings_are_the_callers_between_events(cache, tmp_path):
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    for _ in start(trial(), cache, tmp_path):
        assert torch.get_num_threads() == threads
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "recipe", [{}, {"optimizer": "sgd", "schedule": "step", "milestones": (1,), "ema": 0.9, "warmup_epochs": 0.0}]
)
def test_a_killed_trial_resumes_to_the_same_bits(cache, tmp_path, recipe):
    spec = trial(epochs=3, **recipe)
    whole = run(spec, cache, tmp_path / "whole")
    killed = start(spec, cache, tmp_path / "killed")
    assert isinstance(next(killed), EpochDone)
    assert isinstance(next(killed), CheckpointWritten)
    killed.close()
    resumed = run(spec, cache, tmp_path / "killed")
    assert losses(resumed) == losses(whole)[1:]
    assert results(resumed) == results(whole)


def test_a_stopped_trial_resumes_within_the_epoch_to_the_same_bits(cache, tmp_path):
    spec = trial()
    whole = run(spec, cache, tmp_path / "whole")
    asked = iter([False] * 6)
    with pytest.raises(Stopped, match="epoch 1 after step 2"):
        run(spec, cache, tmp_path / "stopped", stop=lambda: next(asked, True))
    kept = newest(tmp_path / "stopped").values
    assert (kept["epoch"], kept["step"]) == (1, 2), "who is stopped keeps what it has, not only whole epochs"
    resumed = run(spec, cache, tmp_path / "stopped")
    assert losses(resumed) == losses(whole)[1:]
    assert results(resumed) == results(whole)


def test_checkpoints_within_an_epoch_change_nothing(cache, tmp_path):
    whole = run(trial(), cache, tmp_path / "whole")
    often = run(trial(), cache, tmp_path / "often", checkpoint_seconds=0.0)
    assert results(often) == results(whole)
    written = [event.epoch for event in often if isinstance(event, CheckpointWritten)]
    assert written == [-1, -1, -1, 0, 0, 0, 0, 1]


def test_a_finished_trial_runs_nothing_again(cache, tmp_path):
    first = run(trial(), cache, tmp_path)
    again = run(trial(), cache, tmp_path)
    assert [type(event) for event in again] == [Finished]
    assert results(again) == results(first)


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(cache, tmp_path):
    whole = run(trial(), cache, tmp_path)
    last = sorted(tmp_path.glob("step-*"))[-1]
    last.write_bytes(last.read_bytes()[:1000])
    resumed = run(trial(), cache, tmp_path)
    assert losses(resumed) == losses(whole)[1:]
    assert results(resumed) == results(whole)


def test_another_trials_checkpoint_is_refused(cache, tmp_path):
    run(trial(), cache, tmp_path)
    with pytest.raises(ValueError, match="checkpoints of another trial"):
        run(trial(seed=1), cache, tmp_path)


def test_micro_batches_give_the_same_result_where_no_batch_statistics_are_trained(cache, tmp_path):
    frozen = ("stem", "res2", "res3", "res4", "res5")
    spec = trial(block="none", insertion={}, freeze=frozen, label_smoothing=0.1, clip_grad_norm=0.5)
    whole = run(spec, cache, tmp_path / "whole")
    parts = run(spec, cache, tmp_path / "parts", micro_batch=5)
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-6)
    np.testing.assert_allclose(parts[-1].predictions.scores, whole[-1].predictions.scores, atol=1e-3)


def test_a_block_that_needs_two_clips_at_once_never_gets_one(cache, tmp_path):
    odd = trial(block="se_rnl", epochs=1, batch=5)
    assert isinstance(run(odd, cache, tmp_path, micro_batch=2)[-1], Finished)


@pytest.mark.parametrize(
    ("clips", "bound", "least", "parts"),
    [(16, None, 1, 1), (16, 5, 1, 4), (5, 2, 1, 3), (5, 2, 2, 2), (7, 3, 2, 3), (3, 2, 2, 1), (1, 2, 2, 1)],
)
def test_micro_batches_are_within_the_bound_and_none_is_too_small(clips, bound, least, parts):
    assert micro_batches(clips, bound=bound, least=least) == parts


def test_frozen_stages_keep_their_weights_and_statistics(cache, tmp_path):
    spec = trial()
    run(spec, cache, tmp_path)
    trained = newest(tmp_path).tensors
    start_of = spec.workload.open()._pretrained(spec.backbone, RunContext(cache, tmp_path))
    frozen = [name for name in start_of if name.startswith(("conv1", "bn1", "layer1"))]
    assert frozen
    assert all(torch.equal(start_of[name], trained[f"model/{name}"]) for name in frozen)
    assert not torch.equal(start_of["fc.weight"], trained["model/fc.weight"])


def test_divergence_is_typed_and_says_where(cache, tmp_path):
    with pytest.raises(Diverged, match=r"training loss .* in epoch 0.*bound is 0.001"):
        run(trial(divergence=1e-3), cache, tmp_path)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains(cache, tmp_path, precision):
    reference = run(trial(), cache, tmp_path / "fp32")
    mixed = run(trial(precision=precision), cache, tmp_path / precision)
    assert losses(mixed) == pytest.approx(losses(reference), rel=0.05)
    assert losses(mixed) != losses(reference)


def test_averaged_weights_are_what_is_evaluated(cache, tmp_path):
    plain = run(trial(), cache, tmp_path / "plain")
    averaged = run(trial(ema=0.999), cache, tmp_path / "ema")
    assert losses(plain) == losses(averaged)
    assert results(plain)[1] != results(averaged)[1]


def test_blocks_and_backbone_have_their_own_learning_rates():
    spec = trial(lr=0.1, backbone_lr=0.01, lr_batch=8)
    model = build_model(spec.model)
    freeze_stages(model, spec.recipe.freeze)
    groups = {group["name"]: group for group in make_optimizer(model, spec.recipe, fused=True).param_groups}
    assert groups["blocks"]["peak_lr"] == pytest.approx(0.2)
    assert groups["backbone"]["peak_lr"] == pytest.approx(0.02)
    block = model.units("res3")[0].long_range["unit"]
    assert {id(p) for p in groups["blocks"]["params"]} == {id(p) for p in block.parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    assert sum(len(group["params"]) for group in groups.values()) == len(trained) < len(list(model.parameters()))


def test_scaled_learning_rates_are_stated(cache, tmp_path):
    events = run(trial(lr_batch=64, batch=16), cache, tmp_path)
    assert events[-1].notes == (
        "batch 16 is not the recipe's 64: learning rates were scaled linearly by 0.25 "
        "(blocks 0.0025, backbone 0.00075)",
    )


def test_the_recipes_dropout_reaches_the_model(cache, tmp_path):
    plain = run(trial(), cache, tmp_path / "plain")
    dropped = run(trial(dropout=0.5), cache, tmp_path / "dropped")
    assert losses(plain) != losses(dropped)
    again = run(trial(dropout=0.5), cache, tmp_path / "again")
    assert losses(dropped) == losses(again)


def test_nothing_half_written_is_left(cache, tmp_path):
    run(trial(), cache, tmp_path)
    left = [path.name for folder in (cache, tmp_path) for path in Path(folder).rglob("*") if path.is_file()]
    assert not [name for name in left if name.endswith(".aside")]

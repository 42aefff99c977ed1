"""Loading: whole or not at all, from every source, with every difference named."""

import pytest
import torch
from safetensors.torch import save_file

from blocks.registry import parse_config
from workloads.backbones.families import C2DConfig, MFNetConfig, ResNetConfig, StNetConfig, TinyConfig, TSMConfig
from workloads.backbones.model import insert_blocks
from workloads.backbones.weights import WeightsError, load_weights, save_weights

NARROW = {"groups": 2, "width_per_group": 4, "size": 32, "classes": 5}  # bottlenecks, but quick to build
SE = ResNetConfig(name="se", gate="se", **NARROW)
TINY = TinyConfig(name="resnet_tiny")


def fresh(config, seed):
    """A network whose every value, batch statistics included, is its seed's own."""
    torch.manual_seed(seed)
    model = config.build().eval()
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) + 0.5)
    return model


def same(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    return list(ours) == list(theirs) and all(
        torch.equal(ours[key], theirs[key]) for key in ours if not key.endswith("num_batches_tracked")
    )


@pytest.fixture
def tiny_file(tmp_path):
    path = tmp_path / "tiny with spaces 'and quotes'.safetensors"
    save_weights(fresh(TINY, 1), path)
    return path


def test_our_own_checkpoint_comes_back(tiny_file):
    model = fresh(TINY, 2)
    report = load_weights(model, tiny_file)
    assert report.complete
    assert not report.refitted
    assert set(report.loaded) == set(model.state_dict())
    assert same(model, fresh(TINY, 1))
    assert sorted(tiny_file.parent.iterdir()) == [tiny_file]  # nothing half-written stays behind


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_torch_files_plain_or_wrapped(tmp_path, wrapper):
    state = fresh(TINY, 1).state_dict()
    torch.save(state if wrapper is None else {wrapper: state, "epoch": 3}, tmp_path / "file.pth")
    model = fresh(TINY, 2)
    assert load_weights(model, tmp_path / "file.pth").complete
    assert same(model, fresh(TINY, 1))


def tsm_key(key):
    key = key.replace(".conv1.weight", ".conv1.net.weight") if key.startswith("layer") else key
    return "module." + (key.replace("fc.", "new_fc.") if key.startswith("fc.") else f"base_model.{key}")


def se_key(key):
    if key.startswith(("conv1.", "bn1.")):
        return f"layer0.{key}"
    return key.replace("fc.", "last_linear.") if key.startswith("fc.") else key


@pytest.mark.parametrize(
    ("config", "rename"),
    [(ResNetConfig(name="x", **NARROW), str), (TSMConfig(name="x", **NARROW), tsm_key), (SE, se_key)],
    ids=["torchvision", "tsm", "pretrainedmodels"],
)
def test_other_people_s_keys(tmp_path, config, rename):
    state = fresh(config, 1).state_dict()
    renamed = {rename(key): value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    torch.save(renamed, tmp_path / "file.pth")
    model = fresh(config, 2)
    assert load_weights(model, tmp_path / "file.pth").complete
    assert same(model, fresh(config, 1))


def test_mfnet_s_checkpoint(tmp_path):
    config = MFNetConfig(name="mfnet", groups=4, width=16, stem_width=8, size=32, classes=5)
    torch.save({"state_dict": {f"module.{k}": v for k, v in fresh(config, 1).state_dict().items()}}, tmp_path / "x.pth")
    model = fresh(config, 2)
    assert load_weights(model, tmp_path / "x.pth").complete
    assert same(model, fresh(config, 1))


def test_image_weights_inflated_at_the_centre_give_the_per_frame_network(tmp_path):
    fields = {**NARROW, "frames": 4}
    c2d = C2DConfig(name="c2d", **fields)
    i3d = C2DConfig(name="i3d", inflate="alternate", **fields)
    torch.manual_seed(0)
    flat = c2d.build().eval()
    save_weights(flat, tmp_path / "c2d.safetensors")
    deep = fresh(i3d, 1).eval()
    report = load_weights(deep, tmp_path / "c2d.safetensors", inflate="centre")
    assert report.complete
    assert "conv1.weight" in report.refitted
    assert len(report.refitted) == 1 + 3 + 2 + 3 + 1  # stem; units of res2, res3, res4, res5 of a ResNet-50
    x = torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(deep(x), flat(x))


def test_inflation_by_hand(tmp_path):
    config = C2DConfig(name="i3d", inflate="alternate", **NARROW)
    flat = fresh(C2DConfig(name="c2d", **NARROW), 1)
    save_weights(flat, tmp_path / "c2d.safetensors")
    kernel = flat.conv1.weight
    for how, by_hand in (
        ("mean", [kernel / 5] * 5),
        ("centre", [torch.zeros_like(kernel)] * 2 + [kernel] + [torch.zeros_like(kernel)] * 2),
    ):
        deep = fresh(config, 2)
        load_weights(deep, tmp_path / "c2d.safetensors", inflate=how)
        assert torch.equal(deep.conv1.weight, torch.stack(by_hand, dim=2))


def test_kernels_of_one_frame_become_2d(tmp_path):
    config = C2DConfig(name="c2d", **NARROW)
    state = {key: v.unsqueeze(2) if v.dim() == 4 else v for key, v in fresh(config, 1).state_dict().items()}
    torch.save(state, tmp_path / "c3d.pth")
    model = fresh(config, 2)
    assert load_weights(model, tmp_path / "c3d.pth").complete
    assert same(model, fresh(config, 1))


def test_a_stem_over_stacked_equal_frames_answers_as_the_image_stem(tmp_path):
    image = fresh(ResNetConfig(name="x", **NARROW), 1)
    save_weights(image, tmp_path / "image.safetensors")
    stnet = fresh(StNetConfig(name="stnet", stacked=3, **NARROW), 2)
    report = load_weights(stnet, tmp_path / "image.safetensors", allow=["neck.*", "temporal_after_*", "fc.*"])
    assert report.refitted == ("conv1.weight",)
    frame = torch.randn(1, 3, 1, 32, 32)
    with torch.no_grad():
        images = stnet.super_images(frame.expand(-1, -1, 3, -1, -1))
        torch.testing.assert_close(stnet.conv1(images), image.conv1(frame), rtol=1e-4, atol=1e-4)


def test_partial_loads_are_refused_and_leave_the_network_alone(tmp_path):
    state = dict(fresh(TINY, 1).state_dict())
    del state["layer2.0.bn1.bias"], state["layer2.0.bn1.num_batches_tracked"]
    state["extra.weight"] = torch.zeros(3)
    state["fc.weight"] = torch.zeros(7, 64)
    save_file(state, tmp_path / "odd.safetensors")
    model = fresh(TINY, 2)
    with pytest.raises(WeightsError, match="does not fit this network") as raised:
        load_weights(model, tmp_path / "odd.safetensors")
    assert same(model, fresh(TINY, 2))
    message = str(raised.value)
    assert "1 missing from the file: layer2.0.bn1.bias" in message
    assert "1 unexpected in the file: extra.weight" in message
    assert "1 of another shape: fc.weight (ours [10, 64], file [7, 64])" in message
    report = raised.value.report
    assert (report.missing, report.unexpected) == (("layer2.0.bn1.bias",), ("extra.weight",))
    assert [one.key for one in report.mismatched] == ["fc.weight"]


def test_what_is_allowed_is_still_reported(tmp_path):
    state = dict(fresh(TINY, 1).state_dict())
    state["fc.weight"], state["fc.bias"] = torch.zeros(7, 64), torch.zeros(7)
    save_file(state, tmp_path / "seven.safetensors")
    model = fresh(TINY, 2)
    with pytest.raises(WeightsError, match=r"1 of another shape: fc\.bias"):
        load_weights(model, tmp_path / "seven.safetensors", allow=["fc.weight"])
    report = load_weights(model, tmp_path / "seven.safetensors", allow=["fc.*"])
    assert not report.complete
    assert [one.key for one in report.mismatched] == ["fc.bias", "fc.weight"]
    assert "2 mismatched: fc.bias (ours [10], file [7])" in str(report)
    assert torch.equal(model.fc.weight, fresh(TINY, 2).fc.weight)
    assert torch.equal(model.conv1.weight, fresh(TINY, 1).conv1.weight)


def test_new_blocks_are_named_when_they_are_missing(tiny_file):
    model = fresh(TINY, 2)
    insert_blocks(model, parse_config({"name": "se"}), {"res3": [0]})
    with pytest.raises(WeightsError, match=r"layer2\.0\.long_range\.unit\."):
        load_weights(model, tiny_file)
    report = load_weights(model, tiny_file, allow=["*long_range*"])
    assert report.missing
    assert all(".long_range." in key for key in report.missing)


def test_inserting_an_identity_into_a_loaded_network_changes_no_bit(tiny_file):
    model = fresh(TINY, 2)
    load_weights(model, tiny_file)
    x = torch.randn(3, 1, 4, 16, 16)
    with torch.no_grad():
        before = model(x)
        insert_blocks(model, parse_config({"name": "rnl", "kernel": [3, 3, 3]}), {"res2": [0], "res4": [0]})
        assert torch.equal(model.eval()(x), before)


def test_two_keys_for_one_tensor_are_refused(tmp_path):
    state = fresh(TINY, 1).state_dict()
    torch.save({**state, "module.fc.bias": torch.zeros(10)}, tmp_path / "twice.pth")
    with pytest.raises(WeightsError, match=r"'fc\.bias' and 'module\.fc\.bias' are both 'fc\.bias' here"):
        load_weights(fresh(TINY, 2), tmp_path / "twice.pth")


class Evil:
    def __reduce__(self):
        return (print, ("this must never run",))


def test_files_that_are_not_tensors_alone_are_refused_without_running_them(tmp_path, capsys):
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match="not a file of tensors alone"):
        load_weights(fresh(TINY, 2), tmp_path / "evil.pth")
    assert "never run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cut.safetensors", b"\x10\x00", "not a readable checkpoint"),
        ("empty.pth", b"", "not a readable checkpoint"),
        ("text.pth", b"accuracy: 93", "not a readable checkpoint"),
        ("html.pth", b"<!DOCTYPE html>", "not a file of tensors alone"),
    ],
)
def test_broken_files_say_so(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        load_weights(fresh(TINY, 2), tmp_path / name)


def test_other_contents_say_so(tmp_path):
    for content, message in (([torch.zeros(1)], "list"), ({}, "dict"), ({"lr": 0.1}, "it also holds lr")):
        torch.save(content, tmp_path / "x.pth")
        with pytest.raises(WeightsError, match=message):
            load_weights(fresh(TINY, 2), tmp_path / "x.pth")
    with pytest.raises(FileNotFoundError, match="no weights at"):
        load_weights(fresh(TINY, 2), tmp_path / "absent.pth")

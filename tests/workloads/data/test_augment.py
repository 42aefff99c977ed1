import numpy as np
import pytest
import torch

from workloads.data import augment
from workloads.data.augment import Draw, Window, centre, crop, normalise, three, to_clip, training_window

SHAPE = (256, 341)
SHARE = 224 / 256


def windows(draw, times=400, shape=SHAPE):
    generator = np.random.default_rng(0)
    return [training_window(shape, SHARE, draw, generator) for _ in range(times)]


@pytest.mark.parametrize("kind", ["random", "corners", "area", "centre"])
def test_windows_stay_inside_the_frame(kind):
    for shape in (SHAPE, (341, 256), (256, 256)):
        for top, left, height, width, mirrored in windows(Draw(kind, (1.0, 1.25), flip=False), shape=shape):
            assert 0 <= top <= top + height <= shape[0]
            assert 0 <= left <= left + width <= shape[1]
            assert height > 0
            assert width > 0
            assert not mirrored


def test_jitter_is_that_of_a_shorter_side_between_256_and_320():
    sides = [window.height for window in windows(Draw("random", (1.0, 1.25), flip=False))]
    assert max(sides) == 224
    assert min(sides) in (179, 180)  # 224 of 320, seen on a frame of 256


def test_random_windows_reach_every_edge():
    found = windows(Draw("random", (1.0, 1.0), flip=False), times=2000)
    assert {window.top for window in found} >= {0, 32}
    assert {window.left for window in found} >= {0, 117}


def test_corner_windows_are_at_five_places_in_four_sizes():
    found = windows(Draw("corners", (1.0, 1.0), flip=False))
    assert {window.height for window in found} == {256, 224, 192, 169}
    assert {(window.top, window.left) for window in found if window.height == 192} == {
        (0, 0),
        (0, 149),
        (64, 0),
        (64, 149),
        (32, 74),
    }


def test_area_windows_have_the_areas_and_shapes_of_image_training():
    found = windows(Draw("area", (1.0, 1.0), flip=False))
    areas = np.array([window.height * window.width / (256 * 341) for window in found])
    ratios = np.array([window.width / window.height for window in found])
    assert 0.07 < areas.min() < 0.15
    assert areas.max() > 0.8
    assert 0.7 < ratios.min() < 0.9 < 1.1 < ratios.max() < 1.4


def test_half_of_the_clips_are_mirrored_where_that_is_allowed():
    mirrored = [window.mirrored for window in windows(Draw("random", (1.0, 1.0), flip=True))]
    assert 0.4 < np.mean(mirrored) < 0.6


def test_centre_and_three_crops():
    assert centre(6, 10, 4) == Window(1, 3, 4, 4)
    assert three(4, 10, 4) == [Window(0, 0, 4, 4), Window(0, 3, 4, 4), Window(0, 6, 4, 4)]
    assert three(10, 4, 4) == [Window(0, 0, 4, 4), Window(3, 0, 4, 4), Window(6, 0, 4, 4)]


def test_crops_cut_and_mirror_every_frame():
    frames = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4, 1)
    assert np.array_equal(crop(frames, Window(1, 2, 2, 2)), frames[:, 1:3, 2:4])
    assert crop(frames, Window(1, 2, 2, 2, mirrored=True))[0, :, :, 0].tolist() == [[7, 6], [11, 10]]


def test_clips_of_the_right_size_are_not_resampled():
    frames = np.random.default_rng(0).integers(0, 255, (2, 5, 5, 3), np.uint8)
    assert np.array_equal(to_clip(frames, 5).numpy(), frames.transpose(3, 0, 1, 2))
    assert to_clip(frames, 7).shape == (3, 2, 7, 7)
    assert to_clip(np.full((1, 9, 6, 3), 77, np.uint8), 4).unique().tolist() == [77]


def test_normalising_takes_out_mean_and_deviation_per_channel():
    clips = torch.tensor([0, 255], dtype=torch.uint8).view(1, 2, 1, 1, 1).expand(1, 2, 2, 1, 1)
    made = normalise(clips, (0.5, 0.25), (0.5, 0.125))
    assert made[0, :, 0, 0, 0].tolist() == pytest.approx([-1.0, 6.0])
    assert made.dtype == torch.float32
    assert augment.TSN_SCALES[0] == 1.0


def test_normalising_leaves_its_input_alone():
    clips = torch.full((1, 3, 2, 4, 4), 51.0)
    found = augment.normalise(clips, (0.2, 0.2, 0.2), (0.5, 0.5, 0.5))
    assert torch.equal(clips, torch.full((1, 3, 2, 4, 4), 51.0))
    assert torch.allclose(found, torch.zeros(()), atol=1e-6)

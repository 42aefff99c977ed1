import numpy as np
import pytest

from workloads.data.sampling import generator_for, training_frames, views


def draws(count, frames, sampling, stride=1, times=300):
    generator = np.random.default_rng(0)
    return np.stack(
        [training_frames(count, frames, sampling, stride=stride, generator=generator) for _ in range(times)]
    )


def test_training_takes_one_random_frame_of_each_segment():
    drawn = draws(32, 4, "segments")
    assert drawn.shape == (300, 4)
    for segment in range(4):
        assert set(drawn[:, segment]) == set(range(8 * segment, 8 * segment + 8))


def test_tests_take_the_middle_of_each_segment():
    assert views(32, 4, "segments", stride=1, clips=1).tolist() == [[4, 12, 20, 28]]
    assert views(3, 3, "segments", stride=1, clips=1).tolist() == [[0, 1, 2]]


def test_dense_training_clips_start_anywhere_they_fit():
    drawn = draws(30, 4, "dense", stride=8)
    assert set(drawn[:, 0]) == set(range(6))
    assert np.array_equal(drawn[:, 1:], drawn[:, :1] + [8, 16, 24])


def test_the_dense_test_clip_is_the_centre_one_and_several_reach_both_ends():
    assert views(65, 8, "dense", stride=8, clips=1).tolist() == [[4, 12, 20, 28, 36, 44, 52, 60]]
    starts = views(100, 2, "dense", stride=9, clips=10)[:, 0]
    assert starts.tolist() == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]


def test_views_of_segments_differ_and_cover_them_evenly():
    assert views(40, 4, "segments", stride=1, clips=2).tolist() == [[2, 12, 22, 32], [7, 17, 27, 37]]


@pytest.mark.parametrize("sampling", ["segments", "dense"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_short_videos_repeat_frames(sampling, count):
    drawn = draws(count, 8, sampling, stride=3, times=20)
    chosen = views(count, 8, sampling, stride=3, clips=3)
    for frames in (drawn, chosen):
        assert frames.min() >= 0
        assert frames.max() < count
        assert frames.dtype == np.int64
    if sampling == "dense":
        assert chosen[0].tolist() == [3 * number % count for number in range(8)]


def test_randomness_differs_by_everything_it_may_depend_on():
    first = generator_for(1, 2, 3, "frames").random()
    assert first == generator_for(1, 2, 3, "frames").random()
    others = [generator_for(*key).random() for key in ((0, 2, 3, "frames"), (1, 0, 3, "frames"), (1, 2, 0, "frames"))]
    assert first not in [*others, generator_for(1, 2, 3, "window").random()]

import numpy as np
import pytest
from videos import write_image

from workloads.data.frames import frame_names, read_frame_folder
from workloads.data.images import read_single_image
from workloads.data.pictures import Scale, UnreadableVideo


def grey(value, size=(16, 24)):
    return np.full((*size, 3), value, np.uint8)


@pytest.fixture
def folder(tmp_path):
    for number in (1, 2, 3, 10, 20):
        write_image(tmp_path / f"{number}.png", grey(10 * number))
    (tmp_path / "notes.txt").write_text("not a frame")
    return tmp_path


def test_frames_are_in_the_order_of_their_numbers(folder):
    assert frame_names(folder) == ["1.png", "2.png", "3.png", "10.png", "20.png"]


def test_the_chosen_frames_are_read_and_no_others(folder):
    (folder / "3.png").write_bytes(b"broken")
    frames = read_frame_folder(folder, lambda count: np.array([count - 1, 0, 0]), Scale(8))
    assert frames.shape == (3, 8, 12, 3)
    assert frames[:, 0, 0, 0].tolist() == [200, 10, 10]


def test_unreadable_folders_are_typed_errors(folder, tmp_path):
    (folder / "3.png").write_bytes(b"broken")
    with pytest.raises(UnreadableVideo, match=r"3\.png"):
        read_frame_folder(folder, np.arange, Scale(8))
    with pytest.raises(UnreadableVideo, match="no such file"):
        read_frame_folder(tmp_path / "none", np.arange, Scale(8))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnreadableVideo, match="no image in it"):
        read_frame_folder(tmp_path / "empty", np.arange, Scale(8))
    write_image(folder / "3.png", grey(0, (16, 40)))
    with pytest.raises(UnreadableVideo, match="differ in size"):
        read_frame_folder(folder, np.arange, Scale(8))


def test_an_image_is_a_clip_of_one_frame(tmp_path):
    path = write_image(tmp_path / "one.png", grey(90))
    assert read_single_image(path, lambda count: np.zeros(3, np.int64), Scale(16)).shape == (3, 16, 24, 3)

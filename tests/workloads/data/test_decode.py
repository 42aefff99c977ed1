import csv
import os
import random
import shutil
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest
from videos import SHARED, grey_of, moving_square, numbers_of, plain_frames, write_image, write_sound, write_video

from workloads.data import decode, pictures
from workloads.data.decode import probe, read_frames, read_image, shrink
from workloads.data.pictures import Scale, UnreadableVideo

ODD = SHARED / "odd_videos"
WHOLE = Scale()


def at(*numbers):
    return lambda count: np.array(numbers)


def every(count):
    return np.arange(count)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("b-frames.mp4", {"key_every": 12, "bf": "3"}),
        ("short-groups.mp4", {"key_every": 5}),
        ("one-group.mkv", {"key_every": 100}),
        ("all-key.mov", {"key_every": 1}),
        ("old.avi", {"codec": "mpeg4", "key_every": 9, "qmax": "2"}),
        ("old.mpg", {"codec": "mpeg2video", "rate": "25", "qmax": "2"}),
        ("lossless.mkv", {"codec": "ffv1", "pixels": "yuv444p"}),
        ("ten-bit.mkv", {"codec": "ffv1", "pixels": "yuv420p10le"}),
        ("grey.mkv", {"codec": "ffv1", "pixels": "gray"}),
        ("alpha.mkv", {"codec": "ffv1", "pixels": "bgra"}),
        ("motion.avi", {"codec": "mjpeg", "pixels": "yuvj420p"}),
        ("open-groups.mp4", {"key_every": 10, "bf": "3", "x264-params": "open-gop=1"}),
        # Of containers without an index: seeking may lead into the middle of a group.
        ("no-index.ts", {"key_every": 10, "bf": "3"}),
        ("no-index.mpg", {"codec": "mpeg2video", "rate": "25", "qmax": "2", "bf": "2", "key_every": 10}),
        ("odd-index.avi", {"key_every": 10, "bf": "3"}),
        ("odd-index.flv", {"key_every": 10, "bf": "3"}),
        ("reordered.avi", {"codec": "mpeg4", "key_every": 9, "qmax": "2", "bf": "2"}),
    ],
)
def test_frames_are_those_asked_for_in_the_order_asked_for(tmp_path, name, options):
    path = write_video(tmp_path / name, plain_frames(40), **options)
    wanted = [31, 2, 2, 39, 0, 17, 18, 25]
    frames = read_frames(path, at(*wanted), WHOLE)
    assert frames.shape == (8, 48, 64, 3)
    assert frames.dtype == np.uint8
    assert numbers_of(frames) == wanted


def test_any_choice_gives_what_decoding_everything_gives(tmp_path):
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 255, (32, 48, 3), np.uint8) for _ in range(30)]
    path = write_video(tmp_path / "noise.mp4", pictures, key_every=7, bf="2")
    whole = read_frames(path, every, WHOLE)
    assert len(whole) == 30
    for _ in range(10):
        wanted = generator.integers(0, 30, 6)
        assert np.array_equal(read_frames(path, lambda count, wanted=wanted: wanted, WHOLE), whole[wanted])


def test_variable_frame_rate_counts_frames_not_seconds(tmp_path):
    times = [0, 1, 2, 50, 51, 200, 201, 202, 203, 900]
    path = write_video(tmp_path / "uneven.mkv", plain_frames(10), times=times)
    assert numbers_of(read_frames(path, every, WHOLE)) == list(range(10))
    assert numbers_of(read_frames(path, at(9, 5), WHOLE)) == [9, 5]


def test_only_the_groups_that_hold_wanted_frames_are_decoded(tmp_path, monkeypatch):
    path = write_video(tmp_path / "long.mp4", plain_frames(47), key_every=8, bf="0")
    decoded = []
    original = decode._decode_all

    def counting(*args):
        for frame in original(*args):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(decode, "_decode_all", counting)
    assert numbers_of(read_frames(path, at(1, 42), WHOLE)) == [1, 42]
    assert len(decoded) == 2 + 3


def test_one_look_at_a_file_is_enough(tmp_path, monkeypatch):
    path = write_video(tmp_path / "clip.mp4", plain_frames(30), key_every=8, bf="2")
    opened = []
    original = av.open
    monkeypatch.setattr(av, "open", lambda *given, **options: opened.append(given) or original(*given, **options))
    assert numbers_of(read_frames(path, at(2, 19), WHOLE)) == [2, 19]
    assert len(opened) == 1


def test_more_threads_change_nothing(tmp_path):
    path = write_video(tmp_path / "clip.mp4", moving_square("left", 3), bf="2")
    assert np.array_equal(read_frames(path, every, WHOLE), read_frames(path, every, WHOLE, threads=2))


@pytest.mark.parametrize("rotation", [90, -90, 180])
def test_frames_are_upright(tmp_path, rotation):
    frame = np.full((32, 64, 3), 60, np.uint8)
    frame[:8, :8] = 250  # top left, as stored
    path = write_video(tmp_path / "turned.mp4", [frame] * 3, rotation=rotation)
    shown = read_frames(path, at(0), WHOLE)[0]
    expected = np.rot90(frame, rotation // 90)
    assert shown.shape == expected.shape
    assert np.abs(shown.astype(int) - expected).mean() < 8


def test_scaling_keeps_the_aspect_and_grey_has_one_channel(tmp_path):
    path = write_video(tmp_path / "clip.mp4", plain_frames(4, (48, 96)))
    assert read_frames(path, at(0), Scale(24)).shape == (1, 24, 48, 3)
    grey = read_frames(path, at(3), Scale(24, grey=True))
    assert grey.shape == (1, 24, 48, 1)
    assert abs(int(grey.mean()) - grey_of(3)) <= 1  # limited range is expanded


def test_colours_are_right_whatever_the_size(tmp_path):
    pictures = [np.full((48, 64, 3), colour, np.uint8) for colour in ((200, 60, 30), (20, 90, 180), (250, 250, 250))]
    path = write_video(tmp_path / "colours.mkv", pictures, codec="ffv1", pixels="yuv444p")
    for scale in (WHOLE, Scale(24), Scale(96)):
        frames = read_frames(path, every, scale)
        assert np.abs(frames[:, 5, 5].astype(int) - [picture[5, 5] for picture in pictures]).max() <= 2


def test_probe_tells_the_headers(tmp_path):
    info = probe(write_video(tmp_path / "clip.mp4", plain_frames(20), key_every=5, bf="0"))
    assert (info.frames, info.width, info.height, info.codec, info.key_frames) == (20, 64, 48, "h264", 4)
    assert info.seconds == pytest.approx(2.0, abs=0.15)
    assert info.rate == pytest.approx(10.0, abs=0.5)


KEY_EVERY = 6


def _damage(path: Path, seed: int) -> Path:
    """Flip bytes of the third group of pictures."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    keys = [number for number, packet in enumerate(packets) if packet.is_keyframe]
    content = bytearray(path.read_bytes())
    generator = random.Random(seed)
    for packet in packets[keys[2] : keys[3]]:
        for _ in range(8):
            content[packet.pos + generator.randrange(8, packet.size)] ^= generator.randrange(1, 256)
    damaged = path.with_name(f"damaged-{seed}.mp4")
    damaged.write_bytes(content)
    return damaged


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    generator = np.random.default_rng(1)
    pictures = [generator.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(4 * KEY_EVERY)]
    path = tmp_path_factory.mktemp("noise") / "noise.mp4"
    return write_video(path, pictures, key_every=KEY_EVERY, sc_threshold="0", bf="2")


@pytest.mark.parametrize("seed", range(8))
def test_damage_is_noticed_and_spoils_nothing_outside_its_group_of_pictures(noise, seed):
    whole = read_frames(noise, every, WHOLE)
    path = _damage(noise, seed)
    unreadable = []
    for number in range(len(whole)):
        try:
            frames = read_frames(path, at(number), WHOLE)
        except UnreadableVideo:
            unreadable.append(number)
            continue
        if number // KEY_EVERY != 2:
            assert np.array_equal(frames[0], whole[number])
    assert unreadable
    # Closed groups end with a frame that nothing behind needs; none but the damaged group's own frames are lost.
    assert {number // KEY_EVERY for number in unreadable} == {2}


@pytest.mark.parametrize("kept", [0.3, 0.7, 0.95])
@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.avi"])
def test_truncated_files_are_an_error_or_right(tmp_path, name, kept):
    generator = np.random.default_rng(2)
    pictures = [generator.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(24)]
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    path = write_video(tmp_path / name, pictures, codec=codec)
    whole = read_frames(path, every, WHOLE)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with suppress(UnreadableVideo):
        assert np.array_equal(read_frames(path, at(0), WHOLE)[0], whole[0])


def _not_videos(folder: Path) -> dict[str, Path]:
    made = {name: folder / f"{name}.mp4" for name in ("missing", "empty", "folder", "text", "zeros", "header", "pipe")}
    made["empty"].touch()
    made["folder"].mkdir()
    made["text"].write_text("this is no video\n" * 100)
    made["zeros"].write_bytes(bytes(5000))
    made["header"].write_bytes(b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41")
    os.mkfifo(made["pipe"])
    made["sound"] = write_sound(folder / "sound.wav")
    return made


def test_what_is_no_video_is_a_typed_error_that_names_it(tmp_path):
    for name, path in _not_videos(tmp_path).items():
        for read in (lambda path: read_frames(path, at(0), WHOLE), probe):
            with pytest.raises(UnreadableVideo, match=str(path)) as caught:
                read(path)
            if name == "sound":
                assert "no video stream in it, only audio" in str(caught.value)


def test_a_file_that_takes_too_long_is_given_up(tmp_path):
    path = write_video(tmp_path / "clip.mp4", plain_frames(8))
    with pytest.raises(UnreadableVideo, match="time limit"):
        read_frames(path, at(0), WHOLE, seconds=-1)


def test_huge_pictures_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    path = write_video(tmp_path / "clip.mp4", plain_frames(3))
    monkeypatch.setattr(pictures, "MAX_PIXELS", 1000)
    with pytest.raises(UnreadableVideo, match="64x48"):
        read_frames(path, at(0), WHOLE)


def test_absurdly_long_pictures_are_refused(tmp_path):
    path = write_video(tmp_path / "clip.mkv", plain_frames(1, (8, 1024)), codec="ffv1")
    with pytest.raises(UnreadableVideo, match="1024x8"):
        read_frames(path, at(0), Scale(64))


@pytest.mark.parametrize("name", ["image.png", "image.jpg", "image.bmp", "png-in-disguise.jpg"])
def test_images_are_recognised_by_content(tmp_path, name):
    pixels = moving_square("right", 2)[0]
    codec, kind = (
        ("mjpeg", "yuvj420p") if name == "image.jpg" else ("bmp", "bgr24") if "bmp" in name else ("png", "rgb24")
    )
    path = write_image(tmp_path / name, pixels, codec=codec, kind=kind)
    image = read_image(path, WHOLE)
    assert image.shape == (1, 32, 32, 3)
    assert np.abs(image[0].astype(int) - pixels).mean() < 6


def test_what_is_no_image_is_a_typed_error(tmp_path):
    for path in _not_videos(tmp_path).values():
        with pytest.raises(UnreadableVideo, match=str(path)):
            read_image(path, WHOLE)


def test_shrunk_copies_have_the_same_frames_and_more_places_to_start(tmp_path):
    path = write_video(tmp_path / "clip.mkv", plain_frames(30, (96, 144)), key_every=100)
    assert shrink(path, tmp_path / "copy.mp4", 32, key_every=5) == 30
    info = probe(tmp_path / "copy.mp4")
    assert (info.frames, info.width, info.height) == (30, 48, 32)
    assert info.key_frames >= 6
    assert numbers_of(read_frames(tmp_path / "copy.mp4", at(29, 3, 11), WHOLE)) == [29, 3, 11]


def test_shrinking_never_enlarges(tmp_path):
    path = write_video(tmp_path / "clip.mp4", plain_frames(3, (48, 64)))
    shrink(path, tmp_path / "copy.mp4", 240)
    assert (probe(tmp_path / "copy.mp4").width, probe(tmp_path / "copy.mp4").height) == (64, 48)


def _odd_files():
    if not ODD.is_dir():
        return []
    with (ODD / "manifest.csv").open(newline="") as text:
        return [(row["file"], row["outcome"], row["decoded"]) for row in csv.DictReader(text)]


@pytest.mark.skipif(not ODD.is_dir(), reason="needs the odd videos in ../shared/data")
def test_there_are_odd_videos():
    assert len(_odd_files()) == 30


@pytest.mark.parametrize(("name", "outcome", "decoded"), _odd_files())
def test_odd_videos_give_right_frames_or_a_typed_error(name, outcome, decoded):
    if outcome != "ok":
        with pytest.raises(UnreadableVideo, match=name):
            read_frames(ODD / name, every, Scale(32))
        return
    with av.open(str(ODD / name)) as container:
        truth = [pictures.to_pixels(frame, Scale(32)) for frame in container.decode(video=0)]
    assert len(truth) == int(decoded)
    wanted = np.linspace(0, len(truth) - 1, 5).astype(int)
    frames = read_frames(ODD / name, lambda count: wanted, Scale(32))
    assert np.array_equal(frames, np.stack([truth[number] for number in wanted]))


@pytest.mark.skipif(not ODD.is_dir(), reason="needs the odd videos in ../shared/data")
def test_a_video_that_breaks_off_gives_the_frames_before_the_break(tmp_path):
    path = shutil.copy(ODD / "decord__corrupted.mp4", tmp_path)
    assert read_frames(Path(path), at(0, 20), Scale(32)).shape[0] == 2
    with pytest.raises(UnreadableVideo, match=r"after \d+ frames: invalid data"):
        read_frames(Path(path), at(0, 40), Scale(32))

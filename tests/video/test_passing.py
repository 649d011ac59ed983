"""Frames that are passed over change nothing: the vectors are those of decoding every frame."""

import random
from dataclasses import replace

import numpy as np
import pytest

import topgb
from topgb.video.extract import DamagedVideoError, extract_video
from topgb.video.extractors import Extractor, find_extractor
from video.clips import write_clip


def pixels(fps: float = 1.0) -> Extractor:
    """An extractor whose vectors are of the pixels themselves, so that no bit is lost in a net."""
    identity = find_extractor("image", fps).identity
    return Extractor(identity, {"image": lambda: lambda picture: picture.reshape(-1)[::97][:1280].astype(np.float32)})


def both(path, fps: float = 1.0):
    """The video's features with frames passed over, and with all of them decoded."""
    return (extract_video(str(path), pixels(fps), on_damaged=how) for how in ("keep", "skip"))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plain.mp4", {}),
        ("deep.mkv", {"x264-params": "bframes=16:b-pyramid=normal:b-adapt=0:ref=8"}),
        ("flat.mov", {"x264-params": "bframes=3:b-pyramid=none:b-adapt=0"}),
        ("open.ts", {"x264-params": "bframes=4:open-gop=1:keyint=10:b-adapt=0"}),
    ],
)
@pytest.mark.parametrize("fps", [0.5, 1, 7])
def test_passing_over_changes_no_bit(tmp_path, name, options, fps):
    clip = write_clip(tmp_path / name, seconds=8, fps=25, codec="libx264", options=options, sound=None)
    passing, whole = both(clip, fps)
    assert passing.notes.passed > 20
    assert whole.notes.passed == 0
    assert replace(passing.notes, passed=0) == whole.notes
    np.testing.assert_array_equal(passing.arrays["image"], whole.arrays["image"])


@pytest.mark.parametrize("start", [0.0, 8.0])
def test_passing_over_at_a_variable_rate_changes_no_bit(tmp_path, start):
    steps = random.Random(3)
    stamps = [0.0]
    while stamps[-1] < 12:
        stamps.append(round(stamps[-1] + steps.choice([0.02, 0.04, 0.1, 0.7]), 3))
    clip = write_clip(tmp_path / "a.mkv", times=stamps, start=start, codec="libx264", sound=None)
    passing, whole = both(clip)
    assert passing.notes.passed
    np.testing.assert_array_equal(passing.arrays["image"], whole.arrays["image"])


def test_time_stamps_that_jump_bring_back_what_was_passed_over(tmp_path):
    stamps = [number / 25 for number in range(60)]
    jumped = [*stamps, *(90000 + stamp for stamp in stamps)]
    clip = write_clip(tmp_path / "a.mkv", times=jumped, codec="libx264", options={"bf": "3"}, sound=None)
    passing, whole = both(clip)
    assert len(passing.arrays["image"]) == 5
    assert replace(passing.notes, passed=0) == whole.notes
    np.testing.assert_array_equal(passing.arrays["image"], whole.arrays["image"])


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [("a.avi", "mpeg4", {"bf": "2"}), ("a.mkv", "libx264", {"x264-params": "interlaced=1"}), ("a.webm", "vp8", {})],
)
def test_where_it_would_not_be_sure_everything_is_decoded(tmp_path, name, codec, options):
    codec = {"vp8": "libvpx"}.get(codec, codec)
    clip = write_clip(tmp_path / name, fps=25, codec=codec, options=options, sound=None)
    found = extract_video(str(clip), pixels())
    assert (found.notes.passed, found.notes.pictures) == (0, 75)


def _hurt_one_frame(path, marked: int):
    """Overwrite the middle of the packet at this place."""
    import av

    with av.open(str(path)) as file:
        packet = [packet for packet in file.demux() if packet.size][marked]
        place, size = packet.pos, packet.size
    data = bytearray(path.read_bytes())
    data[place + size // 2 : place + size - 1] = b"\xff" * (size - 1 - size // 2)
    path.write_bytes(data)


def test_damage_that_shows_has_every_frame_decoded(tmp_path):
    options = {"x264-params": "bframes=2:b-adapt=0:b-pyramid=none"}
    clip = write_clip(tmp_path / "a.mp4", seconds=8, fps=25, codec="libx264", options=options, sound=None)
    _hurt_one_frame(clip, 100)
    found = extract_video(str(clip), pixels())
    assert found.notes.damaged
    assert found.notes.passed == 0
    with pytest.raises(DamagedVideoError):
        extract_video(str(clip), pixels(), on_damaged="skip")


def test_features_that_may_hide_damage_are_made_anew_where_it_matters(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", fps=25, codec="libx264", sound=None)
    options = {"extractor": "image", "jobs": 1, "progress": False, "force": True}
    decoded = [
        topgb.extract(clip, tmp_path / "out", on_damaged=how, **options).decoded
        for how in ("keep", "keep", "skip", "skip", "keep")
    ]
    assert decoded == [1, 0, 1, 0, 0]

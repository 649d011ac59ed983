"""Frames by time stamp, sound in place, and files as people have them: odd, damaged, or not videos at all."""

import struct
import zlib

import av
import numpy as np
import pytest

from topgb.errors import InputError
from topgb.video.clock import Clock
from topgb.video.decoding import Decoding
from topgb.video.extract import DamagedVideoError, Notes, extract_video
from topgb.video.extractors import find_extractor
from topgb.video.frames import shown_frames
from topgb.video.opening import UnreadableVideoError, open_media, picture_stream
from video.clips import cosines, picture, write_clip


@pytest.fixture(scope="module")
def everything():
    return find_extractor("default")


@pytest.fixture(scope="module")
def pictures_alone():
    return find_extractor("image")


def greys(stamps: list[float]) -> list[np.ndarray]:
    """A picture for each frame, whose brightness is its number."""
    return [np.full((96, 128, 3), 8 + 4 * number, np.uint8) for number in range(len(stamps))]


def shown(path, fps: float = 1.0, most: int = 1000) -> list[int]:
    """The numbers of the frames that are shown at the grid's points, by their brightness."""
    with open_media(str(path)) as file:
        decoding = Decoding(file, picture_stream(file))
        found = []
        for frame, count in shown_frames(decoding, Clock(), fps, most):
            brightness = frame.to_ndarray(format="gray").mean()
            found += [round((brightness - 8) / 4)] * count
        return found


def expected(stamps: list[float], end: float, fps: float = 1.0) -> list[int]:
    """The last frame at or before each point of the grid."""
    points = np.arange(0, end - 1e-6, 1 / fps)
    return [int(np.searchsorted(np.array(stamps) - stamps[0], point + 0.002)) - 1 for point in points]


@pytest.mark.parametrize("start", [0.0, 8.0])
@pytest.mark.parametrize("codec", ["libx264", "ffv1"])
def test_frames_of_variable_rate_are_picked_by_time(tmp_path, start, codec):
    random = np.random.default_rng(5)
    stamps = [0.0, *np.round(np.cumsum(random.choice([0.04, 0.1, 0.3, 2.5], 56)), 3).tolist()]
    clip = write_clip(
        tmp_path / "a.mkv", times=stamps, start=start, images=greys(stamps), codec=codec, sound=None, size=(128, 96)
    )
    assert shown(clip) == expected(stamps, stamps[-1] + 0.1)
    assert shown(clip, fps=3.0) == expected(stamps, stamps[-1] + 0.1, 3.0)


def test_no_more_frames_are_picked_than_asked_for(tmp_path):
    stamps = [number / 10 for number in range(50)]
    clip = write_clip(tmp_path / "a.mkv", images=greys(stamps), seconds=5, sound=None, size=(128, 96))
    assert shown(clip, most=3) == [0, 10, 20]
    assert shown(clip) == [0, 10, 20, 30, 40]


def test_time_stamps_that_jump_a_day_make_no_day_of_vectors(tmp_path, pictures_alone):
    clip = write_clip(tmp_path / "a.mkv", times=[0.0, 0.5, 90000.0, 90000.5], codec="ffv1", sound=None)
    assert extract_video(str(clip), pictures_alone).seconds == 2


@pytest.mark.parametrize(("turn", "name"), [(90, "a.mp4"), (180, "a.mov"), (-90, "a.mp4")])
def test_a_turned_clip_has_the_features_of_its_upright_copy(tmp_path, pictures_alone, turn, name):
    upright = [picture(number, 160, 160) for number in range(3)]
    plain = write_clip(tmp_path / "plain.mp4", fps=1, images=upright, size=(160, 160), sound=None)
    turned = [np.ascontiguousarray(np.rot90(image, -turn // 90)) for image in upright]
    clip = write_clip(tmp_path / name, fps=1, images=turned, size=(160, 160), sound=None)
    wrong = extract_video(str(clip), pictures_alone).arrays["image"]
    _mark_as_turned(clip, turn)
    right = extract_video(str(clip), pictures_alone).arrays["image"]
    upright_features = extract_video(str(plain), pictures_alone).arrays["image"]
    assert cosines(right, upright_features).min() >= 0.98
    assert cosines(wrong, upright_features).max() < cosines(right, upright_features).min()


def _mark_as_turned(path, turn):
    """Write a rotation, counterclockwise as FFmpeg counts, into the matrix of an MP4's first track."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    cosine, sine = {90: (0, -1), 180: (-1, 0), -90: (0, 1)}[turn]
    matrix = [cosine << 16, sine << 16, 0, -sine << 16, cosine << 16, 0, 0, 0, 1 << 30]
    data[place : place + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(data)


def test_keyframes_alone_give_as_many_seconds(tmp_path, pictures_alone):
    fast = find_extractor("fast")
    options = {"g": "20", "sc_threshold": "0"}
    clip = write_clip(tmp_path / "a.mp4", seconds=5, codec="libx264", options=options)
    found, all_frames = extract_video(str(clip), fast), extract_video(str(clip), pictures_alone)
    assert found.notes.pictures == 3
    assert all_frames.notes.pictures == 50
    assert found.arrays["image"].shape == all_frames.arrays["image"].shape == (5, 1280)
    np.testing.assert_array_equal(found.arrays["image"][0::2], all_frames.arrays["image"][0::2])
    np.testing.assert_array_equal(found.arrays["image"][1], found.arrays["image"][0])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("odd.mkv", {"size": (161, 121), "codec": "ffv1", "pixels": "yuv444p"}),
        ("portrait.mp4", {"size": (90, 160)}),
        ("ten-bits.mkv", {"codec": "libx264", "pixels": "yuv420p10le"}),
        ("interlaced.ts", {"codec": "mpeg2video", "options": {"flags": "+ildct+ilme"}, "fps": 25, "sound": "mp2"}),
        ("surround.mkv", {"sound": "ac3", "layout": "5.1", "rate": 48000}),
        ("late.mkv", {"start": 8.0}),
        ("opus.webm", {"codec": "libvpx-vp9", "sound": "libopus", "rate": 48000, "options": {"cpu-used": "8"}}),
    ],
)
def test_clips_of_all_kinds_give_three_full_seconds(tmp_path, everything, name, options):
    found = extract_video(str(write_clip(tmp_path / name, **options)), everything)
    assert found.seconds == 3
    assert {key: values.shape for key, values in found.arrays.items()} == {
        "image": (3, 1280),
        "speech": (3, 96),
        "mel": (3, 128),
    }
    assert found.notes == Notes(pictures=found.notes.pictures, passed=found.notes.passed)
    assert all((np.abs(values).max(1) > 0).all() and values.dtype == np.float32 for values in found.arrays.values())


def test_hdr_does_not_fail(tmp_path, pictures_alone):
    how = {"x265-params": "log-level=none:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"}
    clip = write_clip(tmp_path / "a.mkv", 1.0, codec="libx265", pixels="yuv420p10le", options=how, sound=None)
    assert extract_video(str(clip), pictures_alone).notes == Notes(pictures=10)


def test_missing_sound_and_missing_pictures_are_zeros_and_counted(tmp_path, everything):
    silent = extract_video(str(write_clip(tmp_path / "silent.mp4", sound=None)), everything)
    assert silent.notes == Notes(pictures=30, no_sound=3)
    assert not silent.arrays["speech"].any()
    assert not silent.arrays["mel"].any()
    blind = extract_video(str(write_clip(tmp_path / "blind.m4a", codec=None)), everything)
    assert blind.notes == Notes(no_picture=3)
    assert not blind.arrays["image"].any()
    assert blind.arrays["mel"].shape == (3, 128)


def test_sound_lies_where_its_time_stamps_say(tmp_path, everything):
    late = extract_video(str(write_clip(tmp_path / "late.mkv", seconds=4, sound_start=2.0)), everything)
    assert (np.abs(late.arrays["mel"]).max(1) > 0).tolist() == [False, False, True, True, True, True]
    assert (np.abs(late.arrays["image"]).max(1) > 0).tolist() == [True, True, True, True, False, False]
    assert (late.notes.no_sound, late.notes.no_picture) == (2, 2)
    early = extract_video(str(write_clip(tmp_path / "early.mkv", seconds=4, start=2.0, sound_start=0.0)), everything)
    assert (np.abs(early.arrays["mel"]).max(1) > 0).tolist() == [True, True, False, False]


def test_sound_at_other_rates_and_with_more_channels_sounds_the_same(tmp_path):
    sound = find_extractor("sound")
    same = {"codec": None, "sound": "pcm_s16le"}
    mono = extract_video(str(write_clip(tmp_path / "a.wav", **same)), sound).arrays["mel"]
    for rate, layout in ((48000, "stereo"), (44100, "mono")):
        other = write_clip(tmp_path / f"{rate}.wav", rate=rate, layout=layout, **same)
        assert cosines(mono, extract_video(str(other), sound).arrays["mel"])[:2].min() > 0.99


def test_sound_that_changes_its_channels_goes_on(tmp_path, everything):
    one = write_clip(tmp_path / "one.ts", 2.0, codec=None, layout="stereo", rate=44100).read_bytes()
    two = write_clip(tmp_path / "two.ts", 2.0, codec=None, layout="mono", rate=22050, start=2.0).read_bytes()
    (tmp_path / "both.ts").write_bytes(one + two)
    found = extract_video(str(tmp_path / "both.ts"), everything)
    assert found.notes.no_sound == 0
    assert found.seconds == 4


def test_cover_art_is_no_video(tmp_path, everything):
    path = tmp_path / "song.mp3"
    with av.open(str(path), "w") as file:
        sound, art = file.add_stream("libmp3lame", rate=16000, layout="mono"), file.add_stream("png", rate=1)
        art.width, art.height, art.pix_fmt = 64, 64, "rgb24"
        art.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(picture(1, 64, 64), format="rgb24")
        file.mux(art.encode(frame))
        file.mux(art.encode(None))
        samples = np.zeros((1, 32000), np.float32)
        heard = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        heard.sample_rate = 16000
        file.mux(sound.encode(heard))
        file.mux(sound.encode(None))
    with av.open(str(path)) as file:
        assert len(file.streams.video) == 1
    assert extract_video(str(path), everything).notes == Notes(no_picture=2)


@pytest.mark.parametrize(
    ("suffix", "codec", "pixels"), [(".png", "png", "rgb24"), (".jpg", "mjpeg", "yuvj420p"), (".gif", "gif", "rgb8")]
)
def test_a_still_picture_is_one_frame(tmp_path, pictures_alone, suffix, codec, pixels):
    context = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt, context.time_base = 160, 120, pixels, 1
    frame = av.VideoFrame.from_ndarray(picture(1), format="rgb24").reformat(format=pixels)
    data = b"".join(map(bytes, context.encode(frame) + context.encode(None)))
    path = tmp_path / f"still%d{suffix}"
    if suffix == ".gif":
        write_clip(path, 0.1, codec="gif", sound=None, pixels="rgb8")
    else:
        path.write_bytes(data)
    found = extract_video(str(path), pictures_alone)
    assert found.arrays["image"].shape == (1, 1280)
    assert found.notes == Notes(pictures=1)


def test_an_animated_gif_is_a_video(tmp_path, pictures_alone):
    clip = write_clip(tmp_path / "a.gif", codec="gif", sound=None, pixels="rgb8")
    assert extract_video(str(clip), pictures_alone).notes == Notes(pictures=30)


def damage(path, seed: int = 3, holes: int = 40) -> None:
    data = bytearray(path.read_bytes())
    random = np.random.default_rng(seed)
    for place in random.integers(len(data) // 4, len(data) * 3 // 4, holes).tolist():
        data[place : place + 20] = random.bytes(20)
    path.write_bytes(data)


# As many frames as FFmpeg's own program (9.0.2) decodes of the same bytes. They are written with encoders that make
# the same bytes everywhere.
@pytest.mark.parametrize(("name", "frames"), [("a.avi", 93), ("a.mkv", 61), ("a.mp4", 96), ("a.ts", 96)])
def test_damage_costs_its_own_frames(tmp_path, pictures_alone, name, frames):
    options = {"flags": "+bitexact", "g": "12"}
    clip = write_clip(tmp_path / name, seconds=10, options=options, sound=None)
    damage(clip)
    found = extract_video(str(clip), pictures_alone)
    assert found.notes.pictures == frames
    assert found.seconds == 10
    with pytest.raises(DamagedVideoError, match=r"a\.\w+ is damaged: .*on_damaged='keep'"):
        extract_video(str(clip), pictures_alone, on_damaged="skip")


def _png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.mp4", b""),
        ("text.mp4", b"hello\n" * 100),
        ("noise.mkv", bytes(np.random.default_rng(1).integers(0, 256, 50000, dtype=np.uint8))),
        # What follows would have FFmpeg open other files.
        ("playlist.mp4", b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nok.mp4\n#EXT-X-ENDLIST\n"),
        ("list.mp4", b"ffconcat version 1.0\nfile ok.mp4\n"),
        ("huge.png", _png(30000, 30000)),
    ],
)
def test_what_is_no_video_is_one_sentence(tmp_path, everything, name, content):
    write_clip(tmp_path / "ok.mp4", 1.0)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableVideoError, match=rf"cannot read .*{name} as video or sound: .*; check") as caught:
        extract_video(str(tmp_path / name), everything)
    assert "\n" not in str(caught.value)
    assert caught.value.path == str(tmp_path / name)


def test_a_video_without_what_the_extractor_wants_is_one_sentence(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", 1.0, sound=None)
    with pytest.raises(UnreadableVideoError, match="it has no sound"):
        extract_video(str(clip), find_extractor("sound"))


def test_wrong_options_are_refused(tmp_path, pictures_alone):
    with pytest.raises(InputError, match="on_damaged"):
        extract_video("a.mp4", pictures_alone, on_damaged="drop")
    with pytest.raises(InputError, match="max_seconds"):
        extract_video("a.mp4", pictures_alone, max_seconds=0)


def test_no_more_seconds_than_asked_for(tmp_path, everything):
    clip = write_clip(tmp_path / "a.mp4", 5.0)
    all_of_it, part = (extract_video(str(clip), everything, max_seconds=most) for most in (None, 2))
    assert part.seconds == 2
    for name, values in part.arrays.items():
        np.testing.assert_array_equal(values, all_of_it.arrays[name][:2])


def test_progress_adds_up_to_both_readings(tmp_path, everything):
    done: list[float] = []
    extract_video(str(write_clip(tmp_path / "a.mp4")), everything, progress=done.append)
    assert sum(done) == 6

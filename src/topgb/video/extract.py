"""One video to features: a vector for each second, from one reading of its pictures and one of its sound."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from topgb.errors import InputError, option
from topgb.video.clock import Clock
from topgb.video.decoding import Decoding
from topgb.video.extractors import Extractor
from topgb.video.frames import Pictures, looked_at, shown_frames
from topgb.video.opening import UnreadableVideoError, open_media, picture_stream, sound_stream
from topgb.video.passing import PassedOverError
from topgb.video.sound import seconds_of_sound

OnDamagedVideo = Literal["keep", "skip", "stop"]
# A day at one vector per second; no record can hold four times as many of the default features.
MOST_VECTORS = 86_400


@dataclass(frozen=True)
class Notes:
    """Counts of missing and damaged parts of a video.

    pictures   number of frames
    passed     number of frames that were not decoded, because nothing depends on them: damage there goes unnoticed
    damaged    number of packets that could not be read, or decoded whole
    no_picture number of vectors without a picture; their picture features are zeros
    no_sound   number of vectors without sound; their sound features are zeros
    cut        whether the video is longer than what was extracted, though nobody asked to cut it
    """

    pictures: int = 0
    damaged: int = 0
    no_picture: int = 0
    no_sound: int = 0
    cut: bool = False
    passed: int = 0


@dataclass(frozen=True)
class VideoFeatures:
    """The features of one video.

    arrays   float32 [T, D] by feature, all of one T
    seconds  length of the extracted part: T / fps
    notes    counts of missing and damaged parts
    """

    arrays: dict[str, np.ndarray]
    seconds: float
    notes: Notes


class DamagedVideoError(InputError):
    """A video with damage where it is to be skipped or to stop the work; `path` and the `reason` in words."""

    def __init__(self, path: str, reason: str):
        super().__init__(
            f"{path} is damaged: {reason}; copy it again, or keep what can be decoded with "
            f"{option('on_damaged', 'keep')}"
        )
        self.path, self.reason = path, reason

    def __reduce__(self):
        return type(self), (self.path, self.reason)


def extract_video(
    path: str,
    extractor: Extractor,
    *,
    max_seconds: float | None = None,
    on_damaged: OnDamagedVideo = "keep",
    progress: Callable[[float], None] | None = None,
) -> VideoFeatures:
    """The features of a video, a picture or a sound: vector k is of the frame at k/fps and the second after it.

    max_seconds  extract no more than this
    on_damaged   `keep` what decodes; with `skip` and `stop` any damage raises `DamagedVideoError`, and every frame is
                 decoded to find it, needed or not
    progress     called with the seconds of the video that were done since the last call, of both readings

    A missing picture or missing sound is a vector of zeros. The result does not depend on the number of threads or on
    other videos. Raises `UnreadableVideoError` if nothing decodes; `TopgbError` if a package is not installed.
    """
    if on_damaged not in get_args(OnDamagedVideo):
        raise InputError(f"{option('on_damaged', on_damaged)} is none of {', '.join(get_args(OnDamagedVideo))}")
    if max_seconds is not None and not max_seconds > 0:
        raise InputError(f"{option('max_seconds')} is {max_seconds:g}; it must be more than 0")
    fps = extractor.fps
    most = MOST_VECTORS if max_seconds is None else max(1, min(MOST_VECTORS, round(max_seconds * fps)))
    work = _Work(path, extractor, most, progress or (lambda seconds: None))
    pictures = work.pictures(whole=on_damaged != "keep") if extractor.picture_names else {}
    sounds = work.sounds() if extractor.sound_names else {}
    seen = max(map(len, pictures.values()), default=0)
    heard = {number for rows in sounds.values() for number in rows}
    # A recorded talk may have one picture and an hour of sound.
    vectors = max(seen, max(heard, default=-1) + 1)
    if not vectors:
        raise UnreadableVideoError(path, work.reason())
    if work.damaged and on_damaged != "keep":
        raise DamagedVideoError(path, f"{work.damaged:,} packets cannot be decoded whole")
    arrays = {}
    for feature in extractor.features:
        rows = pictures.get(feature.name, np.empty((0, feature.size), np.float32))
        if len(rows) < vectors:
            values = np.zeros((vectors, feature.size), np.float32)
            values[: len(rows)] = rows
            for number, vector in sounds.get(feature.name, {}).items():
                values[number] = vector
            rows = values
        arrays[feature.name] = rows
    notes = Notes(
        pictures=work.frames,
        damaged=work.damaged,
        no_picture=vectors - seen if extractor.picture_names else 0,
        no_sound=vectors - len(heard) if extractor.sound_names else 0,
        cut=max_seconds is None and vectors == MOST_VECTORS,
        passed=work.passed,
    )
    return VideoFeatures(arrays, vectors / fps, notes)


class _Work:
    """The two readings of one video."""

    def __init__(self, path: str, extractor: Extractor, most: int, progress: Callable[[float], None]):
        self._path, self._extractor, self._most, self._progress = path, extractor, most, progress
        self._zero: float | None = None
        self.frames = self.damaged = self.passed = 0

    def pictures(self, whole: bool) -> dict[str, np.ndarray]:
        """The vectors of each picture feature, [T, D] with as many as there are seconds of pictures.

        whole  decode every frame: the vectors are the same, and damage shows that else would not
        """
        if not whole:
            with suppress(PassedOverError):
                return self._pictures(whole=False)
        return self._pictures(whole=True)

    def _pictures(self, whole: bool) -> dict[str, np.ndarray]:
        names = self._extractor.picture_names
        # These grow in place: of an hour, a list of vectors and the array made of it would take 20 MB each.
        rows = {name: bytearray() for name in names}
        how = self._extractor.identity["features"][names[0]]
        with open_media(self._path) as container:
            stream = picture_stream(container)
            if stream is None:
                return {}
            aspect = float(stream.sample_aspect_ratio or 1)
            side = int(how["crop"].split()[1])
            scaling, squashed = how["scaling"].split()[1], how.get("shape") == "squashed"
            pictures = Pictures(side, how["resize"], scaling, aspect if aspect > 0 else 1.0, squashed)
            decoding, clock = Decoding(container, stream, how["frames"] == "key"), Clock()
            if not whole:
                decoding.pass_over(looked_at(clock, self._extractor.fps))
            for frame, count in shown_frames(decoding, clock, self._extractor.fps, self._most):
                picture = pictures(frame)
                for name in names:
                    rows[name] += self._extractor.nets[name](picture).astype(np.float32).tobytes() * count
                self._progress(count / self._extractor.fps)
            self._zero = clock.first
            self.frames, self.passed = decoding.frames, decoding.passed
            self.damaged += decoding.damaged
        sizes = {feature.name: feature.size for feature in self._extractor.features}
        return {name: np.frombuffer(rows[name], np.float32).reshape(-1, sizes[name]) for name in names}

    def sounds(self) -> dict[str, dict[int, np.ndarray]]:
        """The vectors of each sound feature by their numbers."""
        names = self._extractor.sound_names
        rows: dict[str, dict[int, np.ndarray]] = {name: {} for name in names}
        with open_media(self._path) as container:
            stream = sound_stream(container)
            if stream is None:
                return rows
            decoding, clock = Decoding(container, stream), Clock(self._zero)
            before = -1
            for number, samples in seconds_of_sound(decoding, clock, self._extractor.fps, self._most):
                for name in names:
                    rows[name][number] = self._extractor.nets[name](samples)
                self._progress((number - before) / self._extractor.fps)
                before = number
            self.damaged += decoding.damaged
        return rows

    def reason(self) -> str:
        """The reason why nothing of the file could be read."""
        if self.damaged:
            return "nothing of it can be decoded"
        wanted = [
            word
            for word, names in (("picture", self._extractor.picture_names), ("sound", self._extractor.sound_names))
            if names
        ]
        return f"it has no {' and no '.join(wanted)}"

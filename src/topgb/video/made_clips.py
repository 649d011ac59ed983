"""Small clips with known content, for the demo and a benchmark: drawn pictures and computed sounds, encoded by PyAV."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from topgb.files import atomic_write
from topgb.progress import SILENT, Progress
from topgb.video import made_pictures, made_sounds
from topgb.video.opening import pyav

CLASSES = (*made_pictures.KINDS, *made_sounds.KINDS)
# A scene shows one kind of thing and has one kind of sound, or none.
SCENES, SCENE_SECONDS = (1, 3), (2, 4)
_NOTHING = 0.2
_SAMPLES = 1024


@dataclass(frozen=True)
class Look:
    """The common traits of clips that say nothing about their classes.

    background      makes uint8 [H, W, 3] of a height and a width
    hertz           range of the sounds' pitch
    size            width and height of the pictures
    rate            samples a second
    picture, sound  names of FFmpeg's encoders; `options` are those of the picture's
    suffix          of the files, which decides their container
    """

    background: Callable[[int, int, np.random.Generator], np.ndarray] = made_pictures.plain
    hertz: tuple[float, float] = (300.0, 900.0)
    size: tuple[int, int] = (192, 144)
    fps: int = 8
    rate: int = 16000
    picture: str = "mpeg4"
    sound: str = "aac"
    options: dict[str, str] = field(default_factory=lambda: {"qscale": "4"})
    suffix: str = ".mp4"


# Brighter and grainier pictures of a larger size, higher sounds, and other encoders at a lower quality.
ELSEWHERE = Look(
    made_pictures.textured, (900.0, 1500.0), (240, 136), 12, 44100, "mpeg2video", "mp2", {"b": "400000"}, ".mkv"
)
HOME = Look()


@dataclass(frozen=True)
class Scene:
    """The kinds of picture and sound from `start` to `end`, in seconds; None for nothing."""

    start: int
    end: int
    picture: str | None
    sound: str | None


@dataclass(frozen=True)
class MadeClip:
    """A clip and its scenes."""

    path: Path
    scenes: tuple[Scene, ...]

    @property
    def labels(self) -> list[str]:
        """The classes that occur in it, in the order of `CLASSES`."""
        found = {kind for scene in self.scenes for kind in (scene.picture, scene.sound)}
        return [name for name in CLASSES if name in found]


def make_clips(
    folder: Path, count: int, seed: int, look: Look = HOME, prefix: str = "clip", progress: Progress = SILENT
) -> list[MadeClip]:
    """Write `count` clips into `folder`, each of 2 to 12 seconds with at least one class; `seed` decides the content.

    Raises `TopgbError` where PyAV is not installed, or a clip cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    progress.begin("making clips", count, "clips")
    made = []
    for number in range(count):
        random = np.random.default_rng((seed, number))
        clip = MadeClip(folder / f"{prefix}{number:04d}{look.suffix}", _scenes(random))
        _encode(clip, look, random)
        made.append(clip)
        progress.advance(1)
    progress.end()
    return made


def write_labels(path: Path, clips: Sequence[MadeClip]) -> None:
    """Write the CSV that `topgb extract FOLDER --labels` takes, with the clips' names in their folder."""
    rows = [f"{clip.path.name},{';'.join(clip.labels)}" for clip in clips]
    with atomic_write(path) as file:
        file.write("\n".join(["path,labels", *rows, ""]).encode())


def _scenes(random: np.random.Generator) -> tuple[Scene, ...]:
    while True:
        scenes, start = [], 0
        for _ in range(random.integers(SCENES[0], SCENES[1] + 1)):
            end = start + int(random.integers(SCENE_SECONDS[0], SCENE_SECONDS[1] + 1))
            scenes.append(Scene(start, end, _kind(made_pictures.KINDS, random), _kind(made_sounds.KINDS, random)))
            start = end
        if any(scene.picture or scene.sound for scene in scenes):
            return tuple(scenes)


def _kind(kinds: dict[str, Any], random: np.random.Generator) -> str | None:
    return None if random.random() < _NOTHING else str(random.choice(list(kinds)))


def _encode(clip: MadeClip, look: Look, random: np.random.Generator) -> None:
    av = pyav()
    width, height = look.size
    # One background for the whole clip, which shows one place.
    background = look.background(height, width, random)
    with av.open(str(clip.path), "w") as file:
        pictures = file.add_stream(look.picture, rate=look.fps, options=look.options)
        pictures.width, pictures.height, pictures.pix_fmt = width, height, "yuv420p"
        sounds = file.add_stream(look.sound, rate=look.rate, layout="mono")
        number, place = 0, 0
        for scene in clip.scenes:
            seconds = scene.end - scene.start
            for image in made_pictures.moving_picture(scene.picture, background, look.fps, seconds * look.fps, random):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, look.fps)
                file.mux(pictures.encode(frame))
                number += 1
            samples = made_sounds.made_sound(scene.sound, seconds, look.rate, look.hertz, random)
            for first in range(0, len(samples), _SAMPLES):
                heard = _sound_frame(av, samples[first : first + _SAMPLES], sounds, look)
                heard.pts = place + first
                file.mux(sounds.encode(heard))
            place += len(samples)
        for stream in (pictures, sounds):
            file.mux(stream.encode(None))


def _sound_frame(av: Any, samples: np.ndarray, stream: Any, look: Look) -> Any:
    whole = stream.format.name.startswith("s16")
    values = np.round(samples * 32767).astype(np.int16) if whole else samples
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(values[None]), format=stream.format.name, layout="mono")
    frame.sample_rate, frame.time_base = look.rate, Fraction(1, look.rate)
    return frame

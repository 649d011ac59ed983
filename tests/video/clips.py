"""Small real files, encoded by PyAV."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def picture(seed: int, width: int = 160, height: int = 120) -> np.ndarray:
    """A picture of coloured blocks, uint8 [height, width, 3], that is not the same upside down."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    blocks[: len(blocks) // 3] //= 4
    return blocks.repeat(8, 0).repeat(8, 1)[:height, :width]


def tone(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    """Samples of a tone, float32 [N]."""
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def write_clip(
    path: Path,
    seconds: float = 3.0,
    fps: int = 10,
    size: tuple[int, int] = (160, 120),
    codec: str | None = "mpeg4",
    sound: str | None = "aac",
    rate: int = 16000,
    layout: str = "mono",
    start: float = 0.0,
    sound_start: float | None = None,
    times: list[float] | None = None,
    seed: int = 0,
    hertz: float = 440.0,
    options: dict[str, str] | None = None,
    pixels: str = "yuv420p",
    images: list[np.ndarray] | None = None,
    sound_options: dict[str, str] | None = None,
) -> Path:
    """Encode pictures that change every second, and a tone. `codec` or `sound` None leaves one out."""
    with av.open(str(path), "w") as file:
        pictures = sounds = None
        if codec is not None:
            pictures = file.add_stream(codec, rate=fps, options=options or {})
            pictures.width, pictures.height, pictures.pix_fmt = *size, pixels
            pictures.codec_context.time_base = Fraction(1, 1000 if times else fps)
        if sound is not None:
            sounds = file.add_stream(sound, rate=rate, layout=layout, options=sound_options or {})
        if pictures is not None:
            stamps = times or [number / fps for number in range(round(seconds * fps))]
            for number, stamp in enumerate(stamps):
                image = images[number] if images else picture(seed * 1000 + int(stamp), *size)
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                base = pictures.codec_context.time_base
                frame.pts, frame.time_base = round((stamp + start) / base), base
                file.mux(pictures.encode(frame))
            file.mux(pictures.encode(None))
        if sounds is not None:
            samples = tone(seconds, rate, hertz)
            begin = start if sound_start is None else sound_start
            for place in range(0, len(samples), 1024):
                part = np.repeat(samples[None, place : place + 1024], len(sounds.layout.channels), 0)
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), format="fltp", layout=layout)
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = place + round(begin * rate)
                file.mux(sounds.encode(frame))
            file.mux(sounds.encode(None))
    return path


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The cosine of each row with the same row of the other array."""
    return (one * other).sum(1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))

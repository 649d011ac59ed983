"""Videos for benchmarks, made in seconds: a textured scene that moves, and a tone; long ones repeat their packets."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE = 16_000


def write_video(
    path: Path, size: tuple[int, int], fps: int, seconds: float, repeats: int = 1, seed: int = 0, hertz: float = 440.0
) -> Path:
    """H.264 and AAC in MP4: `seconds` of a scene, `repeats` times."""
    scene = _encode(path.with_suffix(".part.mp4"), size, fps, seconds, seed, hertz)
    with av.open(str(scene)) as source, av.open(str(path), "w") as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        packets = [packet for packet in source.demux() if packet.dts is not None]
        last = dict.fromkeys(streams, -(1 << 62))
        for repeat in range(repeats):
            for packet in packets:
                index, shift = packet.stream.index, round(repeat * seconds / packet.time_base)
                # The sound of one repeat ends in the middle of a packet.
                if packet.dts + shift <= last[index]:
                    continue
                last[index] = packet.dts + shift
                copy = av.Packet(bytes(packet))
                copy.time_base, copy.duration = packet.time_base, packet.duration
                copy.pts, copy.dts = packet.pts + shift, packet.dts + shift
                copy.is_keyframe = packet.is_keyframe
                copy.stream = streams[index]
                target.mux(copy)
    scene.unlink()
    return path


def _encode(path: Path, size: tuple[int, int], fps: int, seconds: float, seed: int, hertz: float) -> Path:
    random = np.random.default_rng(seed)
    width, height = size
    blocks = random.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    scene = blocks.repeat(16, 0).repeat(16, 1)[:height, :width]
    # Grain, so that the decoder has coefficients to work on.
    scene = np.clip(scene.astype(np.int16) + random.integers(-20, 20, scene.shape), 0, 255).astype(np.uint8)
    with av.open(str(path), "w") as file:
        pictures = file.add_stream("libx264", rate=fps, options={"preset": "superfast", "crf": "24", "threads": "2"})
        pictures.width, pictures.height, pictures.pix_fmt = width, height, "yuv420p"
        sounds = file.add_stream("aac", rate=RATE, layout="mono")
        for number in range(round(seconds * fps)):
            moved = np.roll(scene, (number, 3 * number), (0, 1))
            frame = av.VideoFrame.from_ndarray(moved, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            file.mux(pictures.encode(frame))
        file.mux(pictures.encode(None))
        samples = np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE).astype(np.float32)
        for place in range(0, len(samples), 1024):
            part = av.AudioFrame.from_ndarray(samples[None, place : place + 1024].copy(), format="fltp", layout="mono")
            part.sample_rate, part.pts, part.time_base = RATE, place, Fraction(1, RATE)
            file.mux(sounds.encode(part))
        file.mux(sounds.encode(None))
    return path

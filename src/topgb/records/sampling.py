"""Which frames of a video are looked at: the 2018 system's index functions, exact given their uniform draw."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from topgb.errors import InputError


@dataclass(frozen=True)
class FrameSampling:
    """How training picks frames.

    `all`: every frame, once. `random`: `count` frames drawn with replacement. `sequence`: `count` frames in a row from
    a random start, the last frame repeated where the video is shorter. `count` means nothing for `all`.
    """

    mode: Literal["all", "random", "sequence"] = "all"
    count: int = 0


def parse_sampling(text: str) -> FrameSampling:
    """`all`, `random:N` or `sequence:N`. Raises `InputError` for anything else."""
    mode, _, count = text.partition(":")
    if text == "all":
        return FrameSampling()
    if mode in ("random", "sequence") and count.isascii() and count.isdigit() and int(count) > 0:
        return FrameSampling(mode, int(count))  # type: ignore[arg-type]
    raise InputError(f"frame sampling {text!r} is not known; write all, random:N or sequence:N, N being 1 or more")


def random_frames(uniform: np.ndarray, num_frames: int) -> np.ndarray:
    """Indices, int64 [n], of frames drawn with replacement by `uniform`, float32 [n] in [0, 1)."""
    # In float32, as TensorFlow multiplies; below 1 the product never rounds up to num_frames.
    return (np.asarray(uniform, np.float32) * np.float32(num_frames)).astype(np.int64)


def random_sequence(uniform: float | np.ndarray, num_frames: int, count: int) -> np.ndarray:
    """Indices, int64 [count], of frames in a row; `uniform`, one float32 in [0, 1), picks the start.

    A video of fewer than `count` frames is taken from its beginning and its last frame repeated.
    """
    starts = max(num_frames - count, 0) + 1
    start = random_frames(np.asarray(uniform, np.float32).reshape(1), starts)
    return np.minimum(start + np.arange(count), num_frames - 1)


def sample_all(uniform: np.ndarray, num_frames: int) -> np.ndarray:
    """Indices, int64 [n]: the video's frames in order, then frames drawn by the rest of `uniform`, float32 [n]."""
    in_order = np.arange(len(uniform))
    return np.where(in_order < num_frames, in_order, random_frames(uniform, num_frames))


def sampled_rows(sampling: FrameSampling, num_frames: int, seed: int, epoch: int, record: int) -> np.ndarray | None:
    """Indices, int64 [count], of the frames that training takes of a video, or None for all of them.

    A pure function of its arguments; `record` is the record's number in the whole data set.
    """
    if sampling.mode == "all":
        return None
    # Philox is keyed and counted: every record of every epoch has a stream of its own, whatever batch or process asks.
    stream = np.random.Philox(key=np.array([seed, epoch], np.uint64), counter=np.array([0, record, 0, 0], np.uint64))
    generator = np.random.Generator(stream)
    if sampling.mode == "random":
        return random_frames(generator.random(sampling.count, np.float32), num_frames)
    return random_sequence(generator.random(1, np.float32), num_frames, sampling.count)

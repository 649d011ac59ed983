"""Which frames of a video are looked at: the 2018 system's index functions, exact given their uniform draw."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from topgb.errors import InputError


@dataclass(frozen=True)
class FrameSampling:
    """How frames are picked of a video.

    all         every frame, once, in order
    random      `count` frames drawn with replacement (2018: `sample_random_frames`, `iterations`)
    sequence    `count` frames in a row from a random start, the last frame repeated where the video is shorter
    sample_all  every frame in order, then frames drawn with replacement up to the most that are looked at, which
                `sampling_for` makes the `count` (2018: `sample_all`)
    shuffle     every frame, once, in a random order (2018: `frame_shuffle`)

    `count` is how many frames are taken of every video, 0 where that varies.
    """

    mode: Literal["all", "random", "sequence", "sample_all", "shuffle"] = "all"
    count: int = 0


EVERY_FRAME = FrameSampling()


def parse_sampling(text: str) -> FrameSampling:
    """`all`, `random:N`, `sequence:N`, `sample_all` or `shuffle`. Raises `InputError` for anything else."""
    mode, _, count = text.partition(":")
    if text in ("all", "sample_all", "shuffle"):
        return FrameSampling(text)  # type: ignore[arg-type]
    if mode in ("random", "sequence") and count.isascii() and count.isdigit() and int(count) > 0:
        return FrameSampling(mode, int(count))  # type: ignore[arg-type]
    raise InputError(
        f"frame sampling {text!r} is not known; write all, random:N, sequence:N, sample_all or shuffle, "
        "N being 1 or more"
    )


def sampling_for(sampling: FrameSampling, level: Literal["video", "frame"], max_frames: int) -> FrameSampling:
    """`sampling` of records of `level` of which at most `max_frames` frames are looked at.

    Raises `InputError` where there are no frames to sample, or `count` is more than are looked at.
    """
    if sampling.mode != "all" and level == "video":
        raise InputError("video-level records have no frames to sample; set the frame sampling to 'all'")
    if sampling.count > max_frames:
        raise InputError(
            f"frame sampling '{sampling.mode}:{sampling.count}' takes more frames than the model looks at "
            f"('model.max_frames' is {max_frames}); take at most that many"
        )
    return replace(sampling, count=max_frames) if sampling.mode == "sample_all" else sampling


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


def shuffle_frames(uniform: np.ndarray, num_frames: int) -> np.ndarray:
    """Indices, int64 [num_frames]: every frame once, ordered by its draw in `uniform`, float32 [num_frames or more].

    The greatest draw comes first, and of equal ones the earlier frame, as `tf.nn.top_k` orders them.
    """
    return np.argsort(-uniform[:num_frames], kind="stable")


def sampled_rows(sampling: FrameSampling, num_frames: int, seed: int, epoch: int, record: int) -> np.ndarray | None:
    """Indices, int64 [n], of the frames taken of a video, or None for all of them in order.

    A pure function of its arguments; `sampling` is that of `sampling_for`, `epoch` counts training's epochs or
    evaluation's rounds, `record` is the record's number in the whole data set.
    """
    if sampling.mode == "all":
        return None
    # Philox is keyed and counted: every record of every epoch has a stream of its own, whatever batch or process asks.
    stream = np.random.Philox(key=np.array([seed, epoch], np.uint64), counter=np.array([0, record, 0, 0], np.uint64))
    generator = np.random.Generator(stream)
    if sampling.mode == "sequence":
        return random_sequence(generator.random(1, np.float32), num_frames, sampling.count)
    if sampling.mode == "shuffle":
        return shuffle_frames(generator.random(num_frames, np.float32), num_frames)
    take = random_frames if sampling.mode == "random" else sample_all
    return take(generator.random(sampling.count, np.float32), num_frames)

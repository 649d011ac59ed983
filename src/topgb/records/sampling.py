"""Choose frames of a video with 2018's index functions, which give 2018's frames for the same uniform draw."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from topgb.errors import InputError


@dataclass(frozen=True)
class FrameSampling:
    """A way to choose frames of a video.

    all         every frame, once, in order
    random      `count` frames drawn with replacement (2018: `sample_random_frames`, `iterations`)
    sequence    `count` consecutive frames from a random start; a shorter video repeats its last frame
    sample_all  every frame in order, then frames drawn with replacement until there are `count`, which `sampling_for`
                sets to `max_frames` (2018: `sample_all`)
    shuffle     every frame, once, in a random order (2018: `frame_shuffle`)

    `count` is the number of frames taken of each video, 0 if it varies.
    """

    mode: Literal["all", "random", "sequence", "sample_all", "shuffle"] = "all"
    count: int = 0


EVERY_FRAME = FrameSampling()


@dataclass
class Cut:
    """Frames beyond the first `limit` of a video, which no model looks at.

    videos   number of videos that are longer than `limit`
    longest  frames of the longest of them
    frames   frames of them all
    """

    limit: int
    videos: int = 0
    longest: int = 0
    frames: int = 0

    def add(self, frames: int) -> None:
        """Count a video of `frames` frames."""
        if frames > self.limit:
            self.videos += 1
            self.longest = max(self.longest, frames)
            self.frames += frames

    def add_all(self, other: "Cut") -> None:
        """Count the videos that `other` has counted with the same limit."""
        self.videos += other.videos
        self.longest = max(self.longest, other.longest)
        self.frames += other.frames

    def sentence(self, videos: int) -> str | None:
        """How many of the `videos` videos are longer, and by how much; None if none is."""
        if not self.videos:
            return None
        share = 1 - self.limit * self.videos / self.frames
        return (
            f"{self.videos:,} of {videos:,} videos are longer than the {self.limit:,} frames that are looked at, the "
            f"longest {self.longest:,}: {share:.0%} of their frames are cut off"
        )


def parse_sampling(text: str) -> FrameSampling:
    """Parse `all`, `random:N`, `sequence:N`, `sample_all` or `shuffle`. Raises `InputError` for anything else."""
    mode, _, count = str(text).partition(":")
    if text in ("all", "sample_all", "shuffle"):
        return FrameSampling(text)  # type: ignore[arg-type]
    if mode in ("random", "sequence") and count.isascii() and count.isdigit() and int(count) > 0:
        return FrameSampling(mode, int(count))  # type: ignore[arg-type]
    raise InputError(
        f"frame sampling {text!r} is not known; write all, random:N, sequence:N, sample_all or shuffle, "
        "N being 1 or more"
    )


def sampling_for(
    sampling: FrameSampling, level: Literal["video", "frame"], max_frames: int, setting: str
) -> FrameSampling:
    """`sampling` made ready for records of `level` and for a model that takes at most `max_frames` frames of a video.

    `setting` is the user's name for it.

    Raises `InputError` if the records have no frames to sample, or if `count` exceeds `max_frames`.
    """
    if sampling.mode != "all" and level == "video":
        raise InputError(f"video-level records have no frames to sample; {setting} must be all, not {sampling.mode}")
    if sampling.count > max_frames:
        raise InputError(
            f"frame sampling '{sampling.mode}:{sampling.count}' takes more frames than the model looks at "
            f"('model.max_frames' is {max_frames}); take at most that many"
        )
    return replace(sampling, count=max_frames) if sampling.mode == "sample_all" else sampling


def random_frames(uniform: np.ndarray, num_frames: int) -> np.ndarray:
    """Frames drawn with replacement: floor(u · num_frames), int64 [n], for `uniform` u, float32 [n] in [0, 1)."""
    # TensorFlow multiplies in float32, too. The product never rounds up to num_frames, as the draws are below 1.
    return (np.asarray(uniform, np.float32) * np.float32(num_frames)).astype(np.int64)


def random_sequence(uniform: float | np.ndarray, num_frames: int, count: int) -> np.ndarray:
    """`count` consecutive frames, int64 [count], from the start floor(u · (num_frames − count + 1)).

    `uniform` is u, one float32 in [0, 1). A video of fewer than `count` frames starts at 0 and repeats its last frame.
    """
    starts = max(num_frames - count, 0) + 1
    start = random_frames(np.asarray(uniform, np.float32).reshape(1), starts)
    return np.minimum(start + np.arange(count), num_frames - 1)


def sample_all(uniform: np.ndarray, num_frames: int) -> np.ndarray:
    """Frames 0, 1, … num_frames − 1, then `random_frames` of the rest of `uniform`, float32 [n]; int64 [n]."""
    in_order = np.arange(len(uniform))
    return np.where(in_order < num_frames, in_order, random_frames(uniform, num_frames))


def shuffle_frames(uniform: np.ndarray, num_frames: int) -> np.ndarray:
    """Every frame once, int64 [num_frames], in descending order of its draw in `uniform`, float32 [num_frames or more].

    Frames of equal draws keep their order, as in `tf.nn.top_k`.
    """
    return np.argsort(-uniform[:num_frames], kind="stable")


def sampled_rows(sampling: FrameSampling, num_frames: int, seed: int, epoch: int, record: int) -> np.ndarray | None:
    """The frames to take of a video, int64 [n], or None for all of its `num_frames` frames in order.

    A pure function of its arguments. `sampling` comes from `sampling_for`; `epoch` is the number of training's epoch or
    evaluation's round; `record` is the record's number in the whole data set.
    """
    if sampling.mode == "all":
        return None
    # Philox takes a key and a counter, so each record has a random stream of its own in each epoch, in any process.
    stream = np.random.Philox(key=np.array([seed, epoch], np.uint64), counter=np.array([0, record, 0, 0], np.uint64))
    generator = np.random.Generator(stream)
    if sampling.mode == "sequence":
        return random_sequence(generator.random(1, np.float32), num_frames, sampling.count)
    if sampling.mode == "shuffle":
        return shuffle_frames(generator.random(num_frames, np.float32), num_frames)
    take = random_frames if sampling.mode == "random" else sample_all
    return take(generator.random(sampling.count, np.float32), num_frames)

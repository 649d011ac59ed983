"""Features of one video with unequal numbers of frames: stretch the shorter ones in time."""

from collections.abc import Mapping
from typing import Literal

import numpy as np

# Unequal numbers are an error (`equal`), or each feature gets as many frames as the longest (`longest`).
Frames = Literal["equal", "longest"]


def stretched(features: Mapping[str, np.ndarray], frames: int) -> dict[str, np.ndarray]:
    """Features [T, D] of any T, brought to `frames` frames: the nearest in time are repeated or left out."""
    return {
        name: values if len(values) == frames else values[nearest_frames(len(values), frames)]
        for name, values in features.items()
    }


def nearest_frames(frames: int, wanted: int) -> np.ndarray:
    """The number, from 0, of the nearest of `frames` at each of `wanted` moments: int64 [wanted].

    Frame t of T stands for the moment (t + ½) / T of the video.
    """
    return (2 * np.arange(wanted) + 1) * frames // (2 * wanted)

"""Tags of videos that were sent, and of stretches of them, as `topgb tag --json` prints them."""

from typing import Any

import numpy as np

from topgb.errors import InputError, option
from topgb.modelfile import Header
from topgb.modelfile.best import best_classes
from topgb.serving.sources import SentVideo
from topgb.tagging.formats import to_json
from topgb.tagging.tag import Stretch, Tag, TaggedVideo
from topgb.tagging.timeline import Window, windows_of

# Most stretches of one request, all videos together.
MOST_STRETCHES = 4096


def window_frames(header: Header, timeline: float | None, fps: float) -> int | None:
    """The frames of a stretch of `timeline` seconds. Raises `InputError` for a length that the model does not take."""
    if timeline is None:
        return None
    most = header.max_frames
    if header.features.level != "frame":
        raise InputError(f"this model takes one vector for a whole video; leave {option('timeline')} out")
    if not 1 <= round(timeline * fps) <= most:
        raise InputError(
            f"{option('timeline', timeline)} is no length of a stretch; this model takes {1 / fps:g} to {most / fps:g} "
            "seconds"
        )
    return round(timeline * fps)


def stretches_of(header: Header, source: SentVideo, frames: int | None) -> list[Window]:
    """The windows to score: the whole video, as much of it as the model looks at, then each stretch of it."""
    length = len(source.stored)
    return [Window(0, min(length, header.max_frames)), *(windows_of(length, frames) if frames else [])]


def check_count(stretches: int) -> None:
    """Raise `InputError` if a request has too many stretches."""
    if stretches > MOST_STRETCHES:
        raise InputError(
            f"the file has {stretches:,} stretches, and a request may have {MOST_STRETCHES:,}; choose longer ones with "
            f"{option('timeline')}"
        )


def tagged_json(
    header: Header,
    source: SentVideo,
    stretches: list[Window],
    probabilities: np.ndarray,
    choice: tuple[int | None, np.ndarray | None],
) -> dict[str, Any]:
    """A video's tags, and those of its stretches, from probabilities [S, V] of the windows of `stretches_of`.

    `choice` is the most classes to give, None for all, and the least probability of each, None for any.
    """
    tags = [_tags(header, row, *choice) for row in probabilities]
    fps, whole = source.fps, stretches[0]
    timeline = [
        Stretch(window.first / fps, window.end / fps, each)
        for window, each in zip(stretches[1:], tags[1:], strict=True)
    ]
    looked_at = len(source.stored) if timeline else whole.end
    value = to_json([TaggedVideo(source.name, looked_at / fps, tags[0], timeline)])["videos"][0]
    remarks = list(source.remarks)
    if len(source.stored) > whole.end:
        remarks.append(f"the tags are those of the first {whole.end / fps:g} seconds, as many as the model looks at")
    return value | ({"remarks": remarks} if remarks else {})


def _tags(header: Header, probabilities: np.ndarray, top: int | None, least: np.ndarray | None) -> list[Tag]:
    return [
        Tag(index, header.class_name(index), float(probabilities[index]))
        for index in best_classes(probabilities, top, least)
    ]

"""Files that clients send, as videos of stored features."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from topgb.errors import InputError
from topgb.modelfile import Header
from topgb.modelfile.given_arrays import to_stored
from topgb.modelfile.header import EXTRACTOR
from topgb.serving.bodies import MOST_VIDEOS

ARRAYS = (".npy", ".npz")
RECORDS = (".tfrecord", ".tfrecord.gz")


@dataclass(frozen=True)
class ExtractedFile:
    """Features that were made of a video: the `.npz` file that holds them, frames in a second, and remarks."""

    path: Path
    fps: float
    remarks: list[str]


# Makes features of a file for the model with a header, from at most the given number of seconds.
Extract = Callable[[Path, Header, float], ExtractedFile]


@dataclass(frozen=True)
class SentVideo:
    """A video that was sent.

    name     the client's name for it; of a file of records, the file's and the record's id
    stored   its features [T, D] as records store them
    fps      how many frames a second has
    remarks  what was missing, clipped or not looked at, in words
    """

    name: str
    stored: np.ndarray
    fps: float = 1.0
    remarks: list[str] = field(default_factory=list)


def is_video(name: str) -> bool:
    """Whether a file of that name must be decoded to get features."""
    return suffix_of(name) not in (*RECORDS, *ARRAYS)


def suffix_of(name: str) -> str:
    """The suffix of a file's name that shows its kind, in lower case."""
    low = name.lower()
    return next((suffix for suffix in (*RECORDS, *ARRAYS) if low.endswith(suffix)), Path(low).suffix)


def read_source(
    path: Path, name: str, header: Header, max_seconds: float, extract: Extract | None = None
) -> list[SentVideo]:
    """The videos in a file that a client calls `name`, for a model.

    `extract` is needed where `is_video(name)`. Feature files have one frame a second, or as many as the model's
    extractor makes. No more than `max_seconds` of a video are looked at. Raises `InputError` where the file cannot be
    read, or its features are not the model's.
    """
    suffix = suffix_of(name)
    if suffix in RECORDS:
        return _records(path, name, header, max_seconds)
    if suffix in ARRAYS:
        return [_sent_video(name, _read(path, suffix), header, frames_per_second(header), max_seconds, [])]
    if extract is None:
        raise InputError(f"{name} is no file of features; send {', '.join((*ARRAYS, *RECORDS))}")
    found = extract(path, header, max_seconds)
    return [_sent_video(name, _read(found.path, ".npz"), header, found.fps, max_seconds, found.remarks)]


def _read(path: Path, suffix: str) -> Any:
    """An array of joined features, or one for each feature by its name."""
    from topgb.packing.arrays import read_arrays

    arrays = read_arrays(str(path), "features").features
    return next(iter(arrays.values())) if suffix == ".npy" else arrays


def _sent_video(name: str, given: Any, header: Header, fps: float, max_seconds: float, remarks: list[str]) -> SentVideo:
    most = _most_frames(header, fps, max_seconds)
    videos = to_stored(given, header.features, most)
    if not videos.single:
        raise InputError(f"{name} holds several videos; send one for each request, or use /v1/predict")
    return SentVideo(name, videos.stored[0], fps, [*remarks, *videos.notes(header.features, most)])


def _records(path: Path, name: str, header: Header, max_seconds: float) -> list[SentVideo]:
    from topgb.evaluation.opening import open_for

    # An upload has no dataset.yaml, which alone could say which extractor made it.
    extras = {key: value for key, value in header.extras.items() if key != EXTRACTOR}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = open_for(replace(header, extras=extras), [str(path)], with_labels=False, every_frame=True)
    if dataset.num_records > MOST_VIDEOS:
        raise InputError(
            f"{name} holds {dataset.num_records:,} videos, and a request may have {MOST_VIDEOS}; topgb predict takes "
            "whole data sets"
        )
    fps, found = frames_per_second(header), []
    for number in range(dataset.num_records):
        batch = dataset.read_batch([dataset.key(number)])
        frames = batch.features[0, : int(batch.num_frames[0])].numpy()
        most, remarks = _most_frames(header, fps, max_seconds), []
        if len(frames) > most:
            remarks = [f"the video has more than {most} frames; the server looks at the first {most}"]
        found.append(SentVideo(f"{name}: {batch.ids[0]}", frames[:most].copy(), fps, remarks))
    return found


def _most_frames(header: Header, fps: float, max_seconds: float) -> int:
    return max(header.max_frames, round(max_seconds * fps))


def frames_per_second(header: Header) -> float:
    """Frames in a second of the features that the model takes; one, as in YouTube-8M, if the header does not say."""
    found = (header.extractor or {}).get("fps", 1.0)
    return float(found) if isinstance(found, int | float) and 0 < found <= 1000 else 1.0

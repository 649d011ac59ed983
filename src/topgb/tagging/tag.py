"""One video through a model: its tags, and those of each stretch of time in it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from topgb.errors import InputError, option
from topgb.modelfile import LoadedModel
from topgb.modelfile.given_arrays import padded, to_stored
from topgb.modelfile.header import SEGMENTS
from topgb.progress import SILENT, Progress
from topgb.tagging.needed_extractor import needed_extractor
from topgb.tagging.remarks import remarks_on
from topgb.tagging.timeline import Window, windows_of
from topgb.video.extract import VideoFeatures, extract_video
from topgb.video.extractors import Extractor

if TYPE_CHECKING:
    from topgb.records.segment_dataset import SegmentCut

# Windows that are predicted at once, as many as a batch of `topgb eval` has videos.
BATCH = 128


@dataclass(frozen=True)
class Tag:
    """A class that is given to a video or a stretch of it: its number, name and probability."""

    number: int
    name: str
    probability: float


@dataclass(frozen=True)
class Stretch:
    """The tags of the video from `start` to `end`, in seconds, best first."""

    start: float
    end: float
    tags: list[Tag]


@dataclass(frozen=True)
class TaggedVideo:
    """A video's tags, best first.

    path      the file, as it was named
    seconds   length of what the model looked at
    tags      of the whole video
    timeline  of each stretch of it, in order; empty unless it was asked for
    remarks   what was missing, damaged or not looked at, in words
    """

    path: str
    seconds: float
    tags: list[Tag]
    timeline: list[Stretch] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Unreadable:
    """A file that could not be read, and a sentence that says why."""

    path: str
    reason: str


@dataclass(frozen=True)
class TagOptions:
    """Which tags are given: the `top` best classes (None: all) from their `threshold` on, and how long stretches are.

    threshold  a probability for all classes, "model" for the model's own thresholds, or None for no threshold
    timeline   seconds of a stretch, or None for no timeline
    """

    top: int | None = 5
    threshold: float | str | None = None
    timeline: float | None = None


class VideoTagger:
    """A model with the extractor of its features, ready to tag videos."""

    def __init__(self, model: LoadedModel, options: TagOptions):
        """Find the model's extractor and check the options.

        Raises `InputError` as `needed_extractor` does, and for options that make no sense; `TopgbError` where a package
        is not installed.
        """
        if options.top is not None and options.top < 1:
            raise InputError(f"{option('top', options.top)} gives no class; use 1 or more")
        self._model, self._header, self._options = model, model.header, options
        threshold = options.threshold
        self._least = None if threshold is None else self._header.thresholds_for(threshold)[0].astype(np.float32)
        self.extractor: Extractor = needed_extractor(self._header)
        self._frames = None if options.timeline is None else self._window_frames(options.timeline)
        self._cut = None if self._frames is None else self._segment_cut(self._frames)

    def _window_frames(self, seconds: float) -> int:
        fps, most = self.extractor.fps, self._header.max_frames
        # Half a vector rounds to none.
        if not (isinstance(seconds, int | float) and 0.5 < seconds * fps < most + 0.5):
            raise InputError(
                f"{option('timeline', seconds)} is no length of a stretch; this model takes {1 / fps:g} to "
                f"{most / fps:g} seconds"
            )
        return round(seconds * fps)

    def _segment_cut(self, frames: int) -> "SegmentCut | None":
        """How a model of segments sees each stretch of `frames`; None for a model of whole videos."""
        if SEGMENTS not in self._header.extras:
            return None
        # Imported here, because few models are of segments.
        from topgb.evaluation.segments import cut_for

        own = self._header.extras[SEGMENTS]["frames"]
        if frames != own:
            raise InputError(
                f"this is a model of segments of {own} frames; use {option('timeline', own / self.extractor.fps)}"
            )
        return cut_for(self._header, "every")

    def tag(self, path: str, progress: Callable[[float], None] | None = None) -> TaggedVideo:
        """The tags of a video, a picture or a sound; `progress` is called with the seconds done since the last call.

        The features are those of `extract_video`, encoded as the model's records were. Without a timeline no more of
        the video is read than the model looks at. Raises `UnreadableVideoError` where nothing of the file can be read.
        """
        fps, most = self.extractor.fps, self._header.max_frames
        # Read one vector more than the model looks at, to know whether there are more.
        limit = (most + 1) / fps if self._frames is None else None
        found = extract_video(path, self.extractor, max_seconds=limit, progress=progress)
        video = self.stored(found)
        frames = len(video)
        windows = [Window(0, min(frames, most))]
        if self._frames is not None:
            windows += windows_of(frames, self._frames)
        stretches = [video[window.first : window.end] for window in windows]
        if self._cut is not None:
            stretches[1:] = [video[self._cut.rows_of(window.first, frames)] for window in windows[1:]]
        scores = self._predict(stretches)
        tags = [self._tags(row) for row in scores]
        whole, rest = windows[0], windows[1:]
        timeline = [
            Stretch(window.first / fps, window.end / fps, each) for window, each in zip(rest, tags[1:], strict=True)
        ]
        remarks = remarks_on(found.notes, frames)
        if frames > most:
            more = "" if timeline else f"; {option('timeline', 5)} looks at every part"
            remarks.append(
                f"its tags are those of the first {most / fps:g} seconds, as many as the model looks at{more}"
            )
        return TaggedVideo(path, (frames if timeline else whole.end) / fps, tags[0], timeline, remarks)

    def stored(self, found: VideoFeatures) -> np.ndarray:
        """The features [T, D] as records of the model's training set store them: uint8 in its ranges, or float32."""
        frames = len(next(iter(found.arrays.values())))
        return to_stored(found.arrays, self._header.features, frames).stored[0]

    def _predict(self, videos: list[np.ndarray]) -> np.ndarray:
        batches = (videos[first : first + BATCH] for first in range(0, len(videos), BATCH))
        return np.concatenate([self._model.predict(*padded(batch)) for batch in batches])

    def _tags(self, probabilities: np.ndarray) -> list[Tag]:
        best = np.argsort(-probabilities, kind="stable")
        if self._least is not None:
            best = best[probabilities[best] >= self._least[best]]
        numbers = best[: self._options.top].tolist()
        return [Tag(number, self._header.class_name(number), float(probabilities[number])) for number in numbers]


def tag_each(
    tagger: VideoTagger, paths: Sequence[str], progress: Progress = SILENT
) -> Iterator[TaggedVideo | Unreadable]:
    """Tag the videos in order; one that cannot be read becomes an `Unreadable`, and the others go on."""
    progress.begin("tagging", len(paths), "videos")
    for path in paths:
        try:
            found: TaggedVideo | Unreadable = tagger.tag(path)
        except InputError as error:
            found = Unreadable(path, str(error))
        progress.advance(1)
        yield found
    progress.end()

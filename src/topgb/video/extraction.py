"""Turn videos into files of features, one file per video, in several processes; finished videos are not done again."""

import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from topgb.errors import InputError, TopgbError, option
from topgb.files import remove_dead_partials
from topgb.packing.files import VideoFile
from topgb.progress import Progress
from topgb.video.extract import MOST_VECTORS, Notes, OnDamagedVideo
from topgb.video.extractors import Extractor
from topgb.video.workers import Answer, Workers

FEATURES = "features"
# Bytes of a value in a video's own file, and in the records.
_FEATURE_BYTES, _RECORD_BYTES = 4, 1


@dataclass(frozen=True)
class LeftOut:
    """A video that is not in the records, and the reason in words."""

    path: str
    reason: str


class NothingExtractedError(InputError):
    """No video could be extracted; `unreadable` says why not."""

    def __init__(self, unreadable: tuple[LeftOut, ...]):
        first = unreadable[0]
        super().__init__(
            f"none of the {len(unreadable):,} videos can be read, {first.path} because {first.reason}; "
            "check that a player plays them"
        )
        self.unreadable = unreadable

    def to_list(self) -> list[dict[str, str]]:
        """The videos and reasons as JSON values."""
        return [asdict(one) for one in self.unreadable]

    def __reduce__(self):
        return type(self), (self.unreadable,)


class Done(NamedTuple):
    """A video, the file of its features, the seconds that were extracted, and the notes."""

    video: VideoFile
    target: Path
    seconds: float
    notes: Notes


class Extraction:
    """The videos of a set on their way to files of features below `out`."""

    def __init__(
        self,
        videos: list[VideoFile],
        out: Path,
        extractor: Extractor,
        max_seconds: float | None,
        on_damaged: OnDamagedVideo,
        progress: Progress,
    ):
        self._videos, self._out, self._extractor = videos, out, extractor
        self._max_seconds, self._on_damaged, self._progress = max_seconds, on_damaged, progress
        self._contents: dict[int, str] = {}
        # The length that the file states, until the video is done.
        self._lengths: dict[int, float] = {}
        self._notes: dict[int, Notes] = {}
        self.unreadable: list[LeftOut] = []
        self.decoded = 0

    def look(self, workers: Workers) -> None:
        """Find out the videos' lengths and which are done already; show how much time and disk the others take."""
        digest, most = self._extractor.digest, self._max_seconds
        orders = [
            {
                "look": {
                    "path": video.found.path,
                    "target": str(self._target(video)),
                    "digest": digest,
                    "on_damaged": self._on_damaged,
                    "max_seconds": most,
                }
            }
            for video in self._videos
        ]
        self._progress.begin("looking at", len(orders), "videos")
        for answer in workers.run(orders):
            self._progress.advance(1)
            if answer.what != "done":
                self._leave_out(answer)
                continue
            self._contents[answer.number] = answer.value["content"]
            # A file may state any length, and a still picture states none.
            fps = self._extractor.fps
            self._lengths[answer.number] = min(max(answer.value["seconds"], 1 / fps), MOST_VECTORS / fps)
            if "kept" in answer.value:
                self._note(answer.number, answer.value["seconds"], Notes(**answer.value["kept"]))
        self._progress.end()
        self._say_room()

    def extract(self, workers: Workers) -> None:
        """Extract the videos that are not done, the longest first, so that all processes end at about the same time."""
        left = [number for number in self._contents if number not in self._notes]
        for number in left:
            # Killed processes leave these.
            remove_dead_partials(self._target(self._videos[number]))
        left.sort(key=lambda number: (-self._lengths[number], number))
        total = sum(self._lengths[number] for number in left)
        orders = [{"extract": self._order(number)} for number in left]
        self._progress.begin("extracting", max(1, round(total)), "s of video")
        shown = dict.fromkeys(left, 0.0)
        before = 0
        for place, what, value in workers.run(orders):
            number = left[place]
            claimed = self._lengths[number]
            if what == "progress":
                shown[number] = min(shown[number] + value, claimed)
            else:
                shown[number] = claimed
                if what == "done":
                    self.decoded += 1
                    self._note(number, value["seconds"], Notes(**value["notes"]))
                else:
                    self._leave_out(Answer(number, what, value))
            now = round(sum(shown.values()))
            note = f"{now / 60:,.1f} of {total / 60:,.1f} minutes of video"
            self._progress.advance(now - before, note)
            before = now
        self._progress.end()

    def done(self) -> list[Done]:
        """The videos that have features, in the order of their ids. Raises `NothingExtractedError`."""
        self.unreadable.sort(key=lambda left: left.path)
        if not self._notes:
            raise NothingExtractedError(tuple(self.unreadable))
        return [
            Done(video, self._target(video), self._lengths[number], self._notes[number])
            for number, video in enumerate(self._videos)
            if number in self._notes
        ]

    def stale(self) -> list[int]:
        """The sizes of files of features that belong to none of the videos: to those of an earlier call, say."""
        ours = {self._target(video) for video in self._videos}
        there = (self._out / FEATURES).rglob("*.npz")
        return [path.stat().st_size for path in there if path not in ours and not path.name.startswith(".")]

    def _target(self, video: VideoFile) -> Path:
        return self._out / FEATURES / f"{video.id}.npz"

    def _order(self, number: int) -> dict[str, Any]:
        return {
            "path": self._videos[number].found.path,
            "target": str(self._target(self._videos[number])),
            "content": self._contents[number],
            "on_damaged": self._on_damaged,
            "max_seconds": self._max_seconds,
        }

    def _note(self, number: int, seconds: float, notes: Notes) -> None:
        if notes.damaged and self._on_damaged != "keep":
            reason = f"{notes.damaged:,} packets cannot be decoded whole"
            self._leave_out(Answer(number, "failed", {"kind": "damaged", "reason": reason, "message": reason}))
            return
        self._lengths[number] = seconds
        self._notes[number] = notes

    def _leave_out(self, answer: Answer) -> None:
        path = self._videos[answer.number].found.path
        if answer.what == "lost":
            reason = f"reading it failed: {answer.value}"
        else:
            kind, message = answer.value["kind"], answer.value["message"]
            if kind == "failure":
                raise TopgbError(message)
            if kind == "defect":
                raise RuntimeError(message)
            reason = answer.value["reason"]
            if kind == "damaged":
                reason = f"it is damaged: {reason}"
        if self._on_damaged == "stop":
            raise InputError(f"{path} cannot be extracted: {reason}; {option('on_damaged', 'skip')} leaves it out")
        self._contents.pop(answer.number, None)
        self.unreadable.append(LeftOut(path, reason))
        self._progress.say(f"left out {path}: {reason}")

    def _say_room(self) -> None:
        left = [number for number in self._contents if number not in self._notes]
        width = sum(feature.size for feature in self._extractor.features)
        rate = self._extractor.fps * width
        new = sum(self._lengths[number] for number in left) * rate * _FEATURE_BYTES
        records = sum(self._lengths[number] for number in self._contents) * rate * _RECORD_BYTES
        minutes = sum(self._lengths[number] for number in left) / 60
        free = 0
        with suppress(OSError):
            free = shutil.disk_usage(self._out).free
        done = f" ({len(self._notes):,} are done)" if self._notes else ""
        self._progress.say(
            f"room: {len(self._videos):,} videos{done}, {minutes:,.1f} minutes to extract; {self._out} will take "
            f"{_size(new)} more for features and {_size(records)} for records, of {_size(free)} free"
        )
        if new + records > free:
            self._progress.say(f"warning: {self._out} has less room than that")


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"

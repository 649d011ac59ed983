"""Tagged videos as text, CSV, subtitles and JSON."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from topgb.csv_rows import csv_field
from topgb.errors import printable
from topgb.tagging.tag import Stretch, Tag, TaggedVideo, Unreadable

TagFormat = Literal["text", "json", "csv", "srt"]
CSV_HEADER = ("path", "start", "end", "class", "name", "probability")
Row = tuple[str, float, float, int, str, float]
# Players take text that begins with these signs for markup: <i> for italics, {\an8} for a place on the screen.
_MARKUP = ("<", "{")
_WORD_JOINER = "\u2060"


def text_lines(video: TaggedVideo) -> Iterator[str]:
    """The video and its tags, a line for each, and a line for each stretch of the timeline."""
    yield f"{video.path}  {_clock(video.seconds)}"
    if not video.tags:
        yield "  no class reaches its threshold"
    # Escape the names first, because escapes are longer.
    names = [printable(tag.name) for tag in video.tags]
    width = max(map(len, names), default=0)
    for name, tag in zip(names, video.tags, strict=True):
        yield f"  {name:<{width}}  {tag.probability:.3f}"
    for stretch in video.timeline:
        given = ", ".join(f"{tag.name} {tag.probability:.2f}" for tag in stretch.tags) or "-"
        yield f"  {_clock(stretch.start)} to {_clock(stretch.end)}  {given}"


def rows(video: TaggedVideo) -> Iterator[Row]:
    """A row for each tag, in the order of `CSV_HEADER`: of each stretch if there is a timeline, else of the video."""
    for stretch in video.timeline or [Stretch(0.0, video.seconds, video.tags)]:
        for tag in stretch.tags:
            yield video.path, stretch.start, stretch.end, tag.number, tag.name, tag.probability


def csv_lines(video: TaggedVideo) -> Iterator[str]:
    """The lines of a CSV for `rows`."""
    for path, start, end, number, name, probability in rows(video):
        yield f"{csv_field(path)},{start:g},{end:g},{number},{csv_field(name)},{probability:.6g}"


def srt_lines(video: TaggedVideo) -> Iterator[str]:
    """Subtitles in SubRip's form, one for each stretch with tags, numbered from 1, with an empty line behind each."""
    shown = [stretch for stretch in video.timeline if stretch.tags]
    for number, stretch in enumerate(shown, start=1):
        yield str(number)
        yield f"{_subrip_time(stretch.start)} --> {_subrip_time(stretch.end)}"
        for tag in stretch.tags:
            yield f"{_unmarked(tag.name)} {tag.probability:.0%}"
        yield ""


def to_json(videos: Sequence[TaggedVideo], unreadable: Sequence[Unreadable] = ()) -> dict[str, Any]:
    """JSON values of tagged videos; files that could not be read, if any, are under a key of their own."""
    value: dict[str, Any] = {
        "videos": [
            {
                "path": video.path,
                "seconds": video.seconds,
                "tags": _tags(video.tags),
                "timeline": [
                    {"start": stretch.start, "end": stretch.end, "tags": _tags(stretch.tags)}
                    for stretch in video.timeline
                ],
            }
            for video in videos
        ]
    }
    if unreadable:
        value["unreadable"] = [{"path": each.path, "reason": each.reason} for each in unreadable]
    return value


def _tags(tags: Sequence[Tag]) -> list[dict[str, Any]]:
    return [{"class": tag.number, "name": tag.name, "probability": tag.probability} for tag in tags]


def _clock(seconds: float) -> str:
    """Seconds as 0:05 or 1:00:05, with tenths where they are not whole."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    shown = f"{rest // 10:02d}" + (f".{rest % 10}" if rest % 10 else "")
    return f"{hours}:{minutes:02d}:{shown}" if hours else f"{minutes}:{shown}"


def _subrip_time(seconds: float) -> str:
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d},{thousandths:03d}"


def _unmarked(name: str) -> str:
    """A name in one line, in which a player sees no markup."""
    text = printable(name)
    for sign in _MARKUP:
        text = text.replace(sign, sign + _WORD_JOINER)
    return text

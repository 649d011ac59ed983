"""topgb tag."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from topgb import terminal
from topgb.cli.arguments import Json, ModelOrRun, multiply_fast

if TYPE_CHECKING:
    from topgb.tagging.tag import TaggedVideo

# Seconds of a subtitle where no timeline is asked for.
SUBTITLE = 5.0


def tag(
    model: ModelOrRun,
    videos: Annotated[
        list[str], typer.Argument(help="Videos, sounds or pictures, or folders of them.", metavar="VIDEO…")
    ],
    top: Annotated[int, typer.Option(min=1, help="The best K classes.", metavar="K")] = 5,
    threshold: Annotated[
        str | None,
        typer.Option(
            help="The least probability of a class, or model for the file's own thresholds.", metavar="T|model"
        ),
    ] = None,
    timeline: Annotated[
        float | None,
        typer.Option(
            help="Also tag each stretch of this many seconds.  [default: none; of subtitles 5]",
            metavar="SECONDS",
        ),
    ] = None,
    wanted: Annotated[
        Literal["text", "json", "csv", "srt"],
        typer.Option("--format", help="Words, one JSON object, a table, or subtitles for a player."),
    ] = "text",
    json: Json = False,
) -> None:
    """Say what is in videos, and when: make their features with the model's own extractor, and predict.

    The model is one that was trained on what topgb extract wrote. Files that cannot be read are named, and the others
    go on; then the exit code is 1. Subtitles (srt) are of one video: topgb tag M v.mp4 --format srt > v.srt
    """
    from topgb.errors import InputError
    from topgb.progress import SILENT, TerminalProgress
    from topgb.tagging.formats import CSV_HEADER, to_json
    from topgb.tagging.named_files import files_of
    from topgb.tagging.tag import TaggedVideo, TagOptions, VideoTagger, tag_each
    from topgb.training.opened import open_for_engine

    if json and wanted not in ("text", "json"):
        raise InputError(f"--json and --format {wanted} ask for two formats; leave one of them out")
    form = "json" if json else wanted
    files = files_of(videos)
    if form == "srt" and len(files) > 1:
        raise InputError("--format srt makes the subtitles of one video; name one, or take --format csv")
    if form == "srt" and timeline is None:
        timeline = SUBTITLE
    multiply_fast("cpu")
    tagger = VideoTagger(open_for_engine(model, None, "cpu", None).here, TagOptions(top, threshold, timeline))
    found, unreadable = [], []
    if form == "csv":
        terminal.show(",".join(CSV_HEADER))
    # Words appear as they are found; a bar between them would be in the way.
    progress = SILENT if form == "text" and len(files) > 1 else TerminalProgress()
    for each in tag_each(tagger, files, progress):
        if isinstance(each, TaggedVideo):
            found.append(each)
            _show(each, form)
            terminal.tell(*(f"{each.path}: {remark}" for remark in each.remarks))
        else:
            unreadable.append(each)
            terminal.tell(each.reason)
    if form == "json":
        terminal.show_json(to_json(found, unreadable))
    if unreadable:
        raise typer.Exit(1)


def _show(video: "TaggedVideo", form: str) -> None:
    from topgb.tagging.formats import csv_lines, srt_lines, text_lines

    if form == "text":
        terminal.show(*text_lines(video))
    elif form == "csv":
        terminal.show(*csv_lines(video))
    elif form == "srt":
        terminal.show(*srt_lines(video))

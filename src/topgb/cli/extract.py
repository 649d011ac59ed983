"""topgb extract: a person's own videos to records."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from topgb import terminal
from topgb.cli.arguments import Force, Json, UnlabelledOption, ValidatedShare, ValueRanges, parse_range

if TYPE_CHECKING:
    from topgb.video.extract_set import Extracted


def extract(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Videos, sounds and pictures: files, folders, globs in quotes, or CSVs with a column path.",
            metavar="PATH|FOLDER|CSV…",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Directory for records and their dataset.yaml, and for features/.")],
    labels: Annotated[
        Path | None, typer.Option(help="Class names by video: a CSV with path and labels.", metavar="CSV")
    ] = None,
    unlabelled: UnlabelledOption = "stop",
    like: Annotated[
        Path | None,
        typer.Option(
            help="Take ranges and classes from this earlier set, such as a model's training data.", metavar="DIR"
        ),
    ] = None,
    vocabulary: Annotated[
        Path | None,
        typer.Option(help="The classes: a CSV with Index and Name.  [default: those of the labels]", metavar="CSV"),
    ] = None,
    value_ranges: ValueRanges = None,
    validate: ValidatedShare = None,
    extractor: Annotated[
        str,
        typer.Option(
            help="The extractor: default (image, speech, mel), image, sound, fast (keyframes alone), or a "
            "picture net with internet: timm:NAME, open_clip:NAME."
        ),
    ] = "default",
    fps: Annotated[float, typer.Option(help="Vectors per second.")] = 1.0,
    max_seconds: Annotated[
        float | None, typer.Option(help="Extract the beginning of each video, no longer than this.", metavar="N")
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="Processes.  [default: one for each core]", metavar="N")] = None,
    on_damaged: Annotated[
        Literal["keep", "skip", "stop"],
        typer.Option(help="Damaged videos: keep what decodes, leave them out, or stop and name one."),
    ] = "keep",
    force: Force = False,
    json: Json = False,
) -> None:
    """Make records of your own videos, for train, eval and predict.

    Each second becomes a vector of what is seen and heard, without internet. If it is stopped, the same
    command goes on: no video is decoded twice. Needs the extra video.
    """
    from topgb.errors import InterruptError
    from topgb.progress import TerminalProgress
    from topgb.video.extract_set import ExtractOptions, extract_set
    from topgb.video.extraction import NothingExtractedError

    ranges = dict(map(parse_range, value_ranges or []))
    options = ExtractOptions(
        labels, unlabelled, vocabulary, ranges, validate, extractor, fps, max_seconds, jobs, on_damaged, like
    )
    try:
        extracted = extract_set(sources, out, options, force, TerminalProgress())
    except NothingExtractedError as error:
        if json:
            terminal.show_json({"videos": 0, "unreadable": error.to_list()})
        raise
    except KeyboardInterrupt:
        raise InterruptError("interrupted; the same command goes on where this one stopped") from None
    if json:
        terminal.show_json(extracted.to_dict())
    else:
        terminal.say(*_report(extracted))


def _report(done: "Extracted") -> list[str]:
    lines = [f"{done.out}: {done.videos:,} videos, {done.seconds / 60:,.1f} minutes, {done.decoded:,} decoded now"]
    for part, count in (("train", done.train), ("validate", done.validate)):
        if count:
            lines.append(f"records   {part}*.tfrecord: {count:,} videos")
    for feature in done.features:
        low, high = feature.range
        lines.append(f"feature   {feature.name}: width {feature.size}, range {low:.10g} to {high:.10g}")
    lines.append(f"labels    {'none' if done.classes is None else f'{done.classes:,} classes'}")
    for seconds, what in ((done.no_picture, "picture"), (done.no_sound, "sound")):
        if seconds:
            lines.append(f"missing   {what} in {seconds:,.0f} seconds, zeros there")
    if done.damaged:
        packets = sum(one.packets for one in done.damaged)
        lines.append(f"damaged   {len(done.damaged):,} videos, kept without {packets:,} bad packets")
    if done.cut:
        lines.append(f"cut off   {len(done.cut):,} videos after 86,400 vectors")
    if done.unreadable:
        lines.append(f"left out  {len(done.unreadable):,} videos that cannot be read, named above")
    if done.unlabelled:
        lines.append(f"no labels {done.unlabelled:,} videos, kept as showing no class")
    if done.absent:
        lines.append(f"labels of {done.absent:,} videos that are not there were left out")
    if done.stale:
        size = f"{done.stale_bytes / 1e6:,.1f} MB"
        lines.append(
            f"stale     {done.stale:,} files ({size}) in features/ of videos that are not named now, not packed"
        )
    return lines

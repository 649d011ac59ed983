"""topgb submission check."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from topgb import terminal
from topgb.cli.arguments import Json, OnDamagedOption, report_damage

if TYPE_CHECKING:
    from topgb.errors import DamagedRecordError


def check(
    submission: Annotated[Path, typer.Argument(help="A CSV, gzipped if its name ends in .gz.", metavar="FILE")],
    data: Annotated[
        str | None,
        typer.Option(
            help="The test records, fakes included: every video needs a row, and no other one.", metavar="DATA"
        ),
    ] = None,
    on_damaged: OnDamagedOption = "stop",
    json: Json = False,
) -> None:
    """Check that the challenge would take a CSV: header, ids, pairs. Name what is wrong, and exit 1 if anything is.

    A row needs an id that no other has, and at most 20 pairs of different classes and probabilities from 0 to 1, the
    greatest first. A CSV of segments (Class,Segments) needs a class that no other row has, and segments id:start, each
    once, 100,000 at most; with --data, of videos that are there. --data reads no frames.
    """
    from topgb.progress import TerminalProgress, counting
    from topgb.records.ids import video_ids
    from topgb.youtube8m.segment_submission import check_segments, is_segment_submission
    from topgb.youtube8m.submission import check as run

    progress = TerminalProgress()
    damaged: list[DamagedRecordError] = []
    videos = None if data is None else video_ids(data, on_damaged, damaged, counting(progress, "reading", "files"))
    segments = is_segment_submission(submission)
    found = check_segments(submission, videos, progress) if segments else run(submission, videos, progress)
    report_damage(damaged)
    if json:
        terminal.show_json(asdict(found))
    else:
        for problem in found.problems:
            terminal.show(f"{submission}: {problem}")
        if found.count > len(found.problems):
            terminal.show(f"and {found.count - len(found.problems):,} more")
        problems = f"{found.count:,} problem{'' if found.count == 1 else 's'}"
        compared = "" if found.videos is None else f", {found.missing:,} of the data's {found.videos:,} videos missing"
        terminal.show(f"{submission}: {found.rows:,} rows{compared}, {problems}")
    if found.count:
        raise typer.Exit(1)

"""topgb submission: the challenge's CSV, put together and checked."""

import json as json_module
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from topgb.cli.arguments import Force, Json, OnDamagedOption, report_damage

if TYPE_CHECKING:
    from topgb.errors import DamagedRecordError

app = typer.Typer(help="Put submissions to the challenge together, and check them.", no_args_is_help=True)


@app.command("concat")
def concat(
    good: Annotated[Path, typer.Argument(help="What topgb predict wrote.", metavar="GOOD")],
    fake: Annotated[Path, typer.Argument(help="What topgb data drop-fakes --fakes wrote.", metavar="FAKE")],
    out: Annotated[Path, typer.Option(help="The CSV to write; gzipped if its name ends in .gz.")],
    force: Force = False,
) -> None:
    """Join the rows of two CSVs under one header; a video that comes twice is an error."""
    from topgb.evaluation.submission import concat as join
    from topgb.progress import TerminalProgress

    first, second = join(good, fake, out, force, TerminalProgress())
    typer.echo(f"{out}: {first + second:,} videos ({first:,} and {second:,})")


@app.command("check")
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
    greatest first. --data reads no frames.
    """
    from topgb.evaluation.submission import check as run
    from topgb.progress import TerminalProgress, counting
    from topgb.records.ids import video_ids

    progress = TerminalProgress()
    damaged: list[DamagedRecordError] = []
    videos = None if data is None else video_ids(data, on_damaged, damaged, counting(progress, "reading", "files"))
    found = run(submission, videos, progress)
    report_damage(damaged)
    if json:
        typer.echo(json_module.dumps(asdict(found)))
    else:
        for problem in found.problems:
            typer.echo(f"{submission}: {problem}")
        if found.count > len(found.problems):
            typer.echo(f"and {found.count - len(found.problems):,} more")
        problems = f"{found.count:,} problem{'' if found.count == 1 else 's'}"
        compared = "" if found.videos is None else f", {found.missing:,} of the data's {found.videos:,} videos missing"
        typer.echo(f"{submission}: {found.rows:,} rows{compared}, {problems}")
    if found.count:
        raise typer.Exit(1)

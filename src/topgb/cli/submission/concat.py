"""topgb submission concat."""

from pathlib import Path
from typing import Annotated

import typer

from topgb import terminal
from topgb.cli.arguments import Force


def concat(
    good: Annotated[Path, typer.Argument(help="The CSV that topgb predict wrote.", metavar="GOOD")],
    fake: Annotated[Path, typer.Argument(help="The CSV that topgb data drop-fakes --fakes wrote.", metavar="FAKE")],
    out: Annotated[Path, typer.Option(help="The CSV to write; gzipped if its name ends in .gz.")],
    force: Force = False,
) -> None:
    """Join the rows of two CSVs under one header; a video that occurs twice is an error."""
    from topgb.progress import TerminalProgress
    from topgb.youtube8m.submission import concat as join

    first, second = join(good, fake, out, force, TerminalProgress())
    terminal.say(f"{out}: {first + second:,} videos ({first:,} and {second:,})")

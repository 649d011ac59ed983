"""topgb data download."""

from pathlib import Path
from typing import Annotated

import typer

from topgb import terminal
from topgb.cli.arguments import Force

LISTED = 20


def download(
    folder: Annotated[Path, typer.Argument(help="Directory to write the files to.", metavar="FOLDER")],
    partition: Annotated[
        str, typer.Option(help="VERSION/LEVEL/SPLIT, such as 2/frame/train or 2/video/validate.", metavar="PARTITION")
    ],
    shard: Annotated[
        str | None, typer.Option(help="The X-th of Y parts of the files: 1,100 takes a hundredth.", metavar="X,Y")
    ] = None,
    mirror: Annotated[
        str, typer.Option(help="YouTube-8M's, or a server with files at URL/PARTITION/NAME.", metavar="us|eu|asia|URL")
    ] = "us",
    plans: Annotated[
        str | None, typer.Option(help="Another server of plans.  [default: YouTube-8M's]", metavar="URL")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Files fetched at the same time.")] = 8,
    force: Force = False,
) -> None:
    """Download YouTube-8M's records; the same command again goes on where it stopped.

    Every file's MD5 is checked before it gets its name. Files that are there are read: right ones are kept, and with
    others nothing is fetched; --force fetches those anew.
    """
    from topgb.errors import InterruptError, TopgbError
    from topgb.progress import TerminalProgress
    from topgb.youtube8m.download import DownloadOptions
    from topgb.youtube8m.download import download as run_download
    from topgb.youtube8m.plan import PLANS, parse_shard

    options = DownloadOptions(mirror, plans or PLANS, jobs)
    part = None if shard is None else parse_shard(shard)
    try:
        done = run_download(folder, partition, part, options, force, TerminalProgress())
    except KeyboardInterrupt:
        raise InterruptError("interrupted; the same command goes on where this one stopped") from None
    for name, reason in done.failed[:LISTED]:
        terminal.tell(f"{name}: {reason}")
    if len(done.failed) > LISTED:
        terminal.tell(f"and {len(done.failed) - LISTED:,} more")
    terminal.say(
        f"{folder}: {done.there + done.fetched:,} of {done.files:,} files, {done.fetched:,} fetched now "
        f"({done.received / 1e6:,.1f} MB)"
    )
    if done.failed:
        untried = f", and {done.untried:,} were not tried any more" if done.untried else ""
        raise TopgbError(f"{len(done.failed):,} files could not be fetched{untried}; the same command tries them again")

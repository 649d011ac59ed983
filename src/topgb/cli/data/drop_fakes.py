"""topgb data drop-fakes."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from topgb import terminal
from topgb.cli.arguments import Force, Json, OnDamagedOption, report_damage

if TYPE_CHECKING:
    from topgb.youtube8m.deviations import Spread
    from topgb.youtube8m.fakes import DroppedFakes


def drop_fakes(
    source: Annotated[
        str,
        typer.Argument(
            help="Records: a file, a folder, a glob in quotes, a list with commas, or a URL.", metavar="SRC"
        ),
    ],
    folder: Annotated[Path, typer.Argument(help="Directory to write shards of the same names to.", metavar="DST")],
    stats: Annotated[
        Path | None,
        typer.Option(
            help="A CSV with the columns vids and std to take the deviations from; videos not listed are dropped.  "
            "[default: computed from the records]",
            metavar="CSV",
        ),
    ] = None,
    threshold: Annotated[float, typer.Option(min=0.0, help="Videos whose deviation is above it are kept.")] = 0.1,
    feature: Annotated[
        str | None,
        typer.Option(help="The feature whose deviation shows fakes.  [default: rgb or mean_rgb]", metavar="NAME"),
    ] = None,
    fakes: Annotated[
        Path | None,
        typer.Option(help="Also write the dropped videos as rows of a submission; gzipped if it ends in .gz."),
    ] = None,
    on_damaged: OnDamagedOption = "stop",
    json: Json = False,
    force: Force = False,
) -> None:
    """Copy test records without the fake videos that YouTube-8M's 2018 test set was padded with.

    A fake's rgb vector, the mean over its frames, hardly varies: the standard deviation of its values is 0.1 or less.
    Records that are kept are copied byte for byte.
    """
    from topgb.errors import InputError
    from topgb.progress import TerminalProgress, counting
    from topgb.youtube8m.deviations import deviations_from_csv, deviations_from_records
    from topgb.youtube8m.fakes import FakeCriterion
    from topgb.youtube8m.fakes import drop_fakes as run

    if stats is not None and feature is not None:
        raise InputError("--stats takes the deviations from a CSV, and --feature from the records; give one of them")
    measure = deviations_from_records(feature) if stats is None else deviations_from_csv(stats)
    criterion, shown = FakeCriterion(measure, threshold), counting(TerminalProgress(), "reading", "files")
    found = run(source, folder, criterion, fakes, on_damaged, force, shown)
    report_damage(found.damaged)
    if json:
        value = {"videos": found.videos, **asdict(replace(found, damaged=[])), "parted": found.parted}
        terminal.show_json({**value, "damaged": len(found.damaged)})
        return
    terminal.say(*_report(found, folder))
    if fakes is not None:
        terminal.say(f"{fakes}: {found.dropped.videos + found.unlisted:,} rows")


def _report(found: "DroppedFakes", folder: Path) -> list[str]:
    lines = [
        f"{folder}: {found.written:,} of {found.files:,} files, {found.kept.videos:,} of {found.videos:,} videos",
        f"kept     {_spread(found.kept)}",
        f"dropped  {_spread(found.dropped)}",
    ]
    if found.unlisted:
        lines.append(f"         {found.unlisted:,} videos that the CSV lacks")
    close = f"{found.close:,} videos lie within a tenth of the threshold {found.threshold:g}"
    if found.parted:
        lines.append(f"two modes: {close}")
    elif found.kept.videos and found.dropped.videos:
        lines.append(f"one mode only, which the threshold cuts: {close}")
    else:
        lines.append(f"one mode only: {close}")
    empty = found.files - found.written
    if empty:
        lines.append(f"{empty:,} {'file had' if empty == 1 else 'files had'} no video left, and no copy was written")
    return lines


def _spread(spread: "Spread") -> str:
    if not spread.videos:
        return "0 videos"
    videos = f"{spread.videos:,} video{'' if spread.videos == 1 else 's'}"
    return f"{videos}, std {spread.least:.4f} to {spread.greatest:.4f}, mode {spread.mode:.4f}"

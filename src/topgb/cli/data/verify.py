"""topgb data verify."""

import typer

from topgb import terminal
from topgb.cli.arguments import Address, Data, EngineOption, Json, damage_rows


def verify(data: Data, json: Json = False, engine: EngineOption = "local", address: Address = None) -> None:
    """Check every record's CRCs and contents; name every damaged or unusable one, and a video that occurs twice.

    The exit code is 1 if there is any.
    """
    from topgb.jobs.engine import open_engine
    from topgb.progress import TerminalProgress, counting
    from topgb.records.verify import verify_shards
    from topgb.results import plain

    progress = counting(TerminalProgress(), "verifying", "files")
    found = verify_shards(data, progress, open_engine(engine, address))
    damaged, unusable, fault = damage_rows(found.damaged), damage_rows(found.unusable), found.labels.fault
    if json:
        counts = {"files": found.files, "sound": found.sound, "labels": fault, "repeated": plain(found.repeated)}
        counts["segments"] = plain(found.segments)
        terminal.show_json({**counts, "damaged": damaged, "unusable": unusable})
    else:
        for row in (*damaged, *unusable):
            # The reason of a file that is not a TFRecord names the file.
            where = f"{row['file']}: record {row['record']} at byte {row['offset']}: "
            terminal.show(f"{'' if row['reason'].startswith(row['file']) else where}{row['reason']}")
        if fault:
            terminal.show(f"{data}: {fault}")
        if found.repeated:
            terminal.show(f"{found.repeated.sentence()}; leave all but one of each out")
        more = f", {len(unusable):,} unusable" if unusable else ""
        if found.segments.ratings:
            more += f"; {found.segments.segments:,} segments with {found.segments.ratings:,} ratings"
        terminal.show(f"{found.files:,} files, {found.sound:,} sound records, {len(damaged):,} damaged{more}")
    if damaged or unusable or fault or found.repeated:
        raise typer.Exit(1)

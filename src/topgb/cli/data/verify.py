"""topgb data verify."""

import json as json_module

import typer

from topgb.cli.arguments import Address, Data, EngineOption, Json, damage_rows


def verify(data: Data, json: Json = False, engine: EngineOption = "local", address: Address = None) -> None:
    """Check every record's CRCs and contents; name every damaged one, and exit 1 if there is any."""
    from topgb.jobs.engine import open_engine
    from topgb.progress import TerminalProgress, counting
    from topgb.records.verify import verify_shards

    progress = counting(TerminalProgress(), "verifying", "files")
    found = verify_shards(data, progress, open_engine(engine, address))
    rows = damage_rows(found.damaged)
    if json:
        typer.echo(json_module.dumps({"files": found.files, "sound": found.sound, "damaged": rows}))
    else:
        for row in rows:
            typer.echo(f"{row['file']}: record {row['record']} at byte {row['offset']}: {row['reason']}")
        typer.echo(f"{found.files:,} files, {found.sound:,} sound records, {len(rows):,} damaged")
    if rows:
        raise typer.Exit(1)

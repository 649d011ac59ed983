"""topgb data: look at records, check them, make them."""

import json as json_module
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from topgb.cli.arguments import Address, Data, EngineOption, Force, Json, open_engine
from topgb.cli.download import download
from topgb.cli.fakes import drop_fakes
from topgb.cli.pack import pack

if TYPE_CHECKING:
    from topgb.errors import DamagedRecordError
    from topgb.features import FeatureSpec
    from topgb.records.inspect import FeatureSummary, Inspection

app = typer.Typer(help="Get records, look at them, check them, and make them.", no_args_is_help=True)
app.command("download")(download)
app.command("drop-fakes")(drop_fakes)
app.command("pack")(pack)


@app.command("inspect")
def inspect(data: Data, json: Json = False) -> None:
    """Tell what records hold: features, widths, frames, labels, classes; and the recipe section that reads them."""
    from topgb.progress import TerminalProgress, counting
    from topgb.records.inspect import inspect_shards

    found = inspect_shards(data, counting(TerminalProgress(), "reading", "files"))
    if json:
        typer.echo(json_module.dumps({**asdict(replace(found, damaged=[])), "damaged": _rows(found.damaged)}))
    else:
        typer.echo(_described(found))


@app.command("verify")
def verify(data: Data, json: Json = False, engine: EngineOption = "local", address: Address = None) -> None:
    """Check every record's CRCs and contents; name every damaged one, and exit 1 if there is any."""
    from topgb.progress import TerminalProgress, counting
    from topgb.records.verify import verify_shards

    progress = counting(TerminalProgress(), "verifying", "files")
    found = verify_shards(data, progress, open_engine(engine, address))
    rows = _rows(found.damaged)
    if json:
        typer.echo(json_module.dumps({"files": found.files, "sound": found.sound, "damaged": rows}))
    else:
        for row in rows:
            typer.echo(f"{row['file']}: record {row['record']} at byte {row['offset']}: {row['reason']}")
        typer.echo(f"{found.files:,} files, {found.sound:,} sound records, {len(rows):,} damaged")
    if rows:
        raise typer.Exit(1)


@app.command("synth")
def synth(
    folder: Annotated[Path, typer.Argument(help="Directory to write shards to.", metavar="FOLDER")],
    videos: Annotated[int, typer.Option(min=1, help="How many records.")] = 1000,
    classes: Annotated[int, typer.Option(min=1, help="How many classes.")] = 100,
    level: Annotated[Literal["video", "frame"], typer.Option(help="Examples or SequenceExamples.")] = "frame",
    features: Annotated[
        str | None, typer.Option(help="NAME:SIZE, comma-separated.  [default: YouTube-8M's of that level]")
    ] = None,
    frames: Annotated[str, typer.Option(help="Fewest and most frames of a video.")] = "20,60",
    videos_per_shard: Annotated[int, typer.Option(min=1, help="Records of a file.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other videos of the same classes.")] = 0,
    noise: Annotated[float, typer.Option(min=0.0, help="0 is easy; around 5 the classes drown.")] = 1.5,
    labelled: Annotated[bool, typer.Option("--labelled/--unlabelled", help="Unlabelled, as a test set is.")] = True,
    prefix: Annotated[str, typer.Option(help="File names are PREFIX0000.tfrecord and so on.")] = "train",
    force: Force = False,
) -> None:
    """Write a learnable synthetic data set; the same options give the same bytes.

    --force replaces an earlier set of the same prefix whole: shards beyond the new ones are removed.
    """
    from topgb.progress import TerminalProgress, counting
    from topgb.records.synth import write_synthetic

    written = write_synthetic(
        folder,
        _spec(level, features),
        classes,
        videos,
        videos_per_shard=videos_per_shard,
        frames=_frame_range(frames),
        seed=seed,
        noise=noise,
        labelled=labelled,
        prefix=prefix,
        force=force,
        on_progress=counting(TerminalProgress(), "writing", "videos"),
    )
    typer.echo(f"{len(written)} files in {folder}, {videos:,} videos")


def _spec(level: Literal["video", "frame"], features: str | None) -> "FeatureSpec":
    from topgb.errors import InputError
    from topgb.features import YOUTUBE8M_FRAMES, YOUTUBE8M_VIDEOS, Feature, FeatureSpec

    if features is None:
        return YOUTUBE8M_FRAMES if level == "frame" else YOUTUBE8M_VIDEOS
    parsed = []
    for text in features.split(","):
        name, colon, size = text.strip().partition(":")
        if not name or not colon or not size.isdecimal():
            raise InputError(f"--features {text!r} is not NAME:SIZE, such as rgb:1024")
        parsed.append(Feature(name, int(size), "uint8" if level == "frame" else "float32"))
    return FeatureSpec(level, tuple(parsed))


def _frame_range(text: str) -> tuple[int, int]:
    from topgb.errors import InputError

    few, comma, many = text.partition(",")
    if not comma or not few.strip().isdecimal() or not many.strip().isdecimal():
        raise InputError(f"--frames {text!r} is not FEWEST,MOST, such as 20,60")
    return int(few), int(many)


def _rows(damaged: "list[DamagedRecordError]") -> list[dict[str, Any]]:
    return [{"file": e.path, "record": e.record, "offset": e.offset, "reason": e.reason} for e in damaged]


def _described(found: "Inspection") -> str:
    lines = [f"{found.files:,} files, {found.records:,} records, {found.level} level"]
    if found.max_frames is not None:
        lines.append(f"frames    {found.min_frames} to {found.max_frames}, mean {found.mean_frames:.1f}")
    lines += [f"feature   {_summary(feature, found.records)}" for feature in found.features]
    lines += [f"context   {_summary(feature, found.records)}" for feature in found.other]
    for key, count in found.id_keys.items():
        lines.append(f"ids       {key!r} in {count:,} records")
    lines.append(f"labels    in {found.labelled:,} of {found.records:,} records")
    if found.label_max is not None:
        lines.append(
            f"          {found.label_min} to {found.label_max}, {found.distinct_classes:,} different, "
            f"{found.labels_per_video:.2f} a video"
        )
    if found.damaged:
        lines.append(f"damaged   {len(found.damaged):,} records; topgb data verify says which and why")
    if found.suggested_spec is not None:
        lines += ["", "a recipe that reads these records begins", *_recipe_section(found)]
    return "\n".join(lines)


def _summary(feature: "FeatureSummary", records: int) -> str:
    width = str(feature.min_width)
    if feature.max_width != feature.min_width:
        width += f" to {feature.max_width}"
    where = "" if feature.records == records else f", in {feature.records:,} records only"
    return f"{feature.name}: {feature.kind}, width {width}{where}"


def _recipe_section(found: "Inspection") -> list[str]:
    spec = found.suggested_spec
    assert spec is not None
    lines = ["data:", f"  level: {spec.level}", "  features:"]
    lines += [f"    - {{name: {f.name}, size: {f.size}, dtype: {f.dtype}}}" for f in spec.features]
    if found.suggested_classes is not None:
        lines.append(f"  classes: {found.suggested_classes}  # at least; the data set may have more")
    return lines
